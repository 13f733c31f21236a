package api_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"cistern/api"
	"cistern/store"
	"cistern/store/storetest"
)

// TestEphemeral: a server of events only answers queries about repositories. It refuses queries for
// records, rather than answer as if the account had no records.
func TestEphemeral(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{Ephemeral: true, Retention: time.Hour})
	w := newWorldOn(t, s, api.Options{})
	w.hold(t, alice, storetest.Records{"app.test.a/one": storetest.Text("one")})
	of := url.Values{"repo": {alice}, "collection": {"app.test.a"}, "rkey": {"one"}}
	for _, method := range []string{"repo.getRecord", "repo.listRecords", "repo.describeRepo", "sync.getRepo",
		"sync.listReposByCollection"} {
		w.refuses(t, "com.atproto."+method, of, 501, "EventsOnly", "--ephemeral")
	}
	for _, method := range []string{"getLatestCommit", "getRepoStatus", "listRepos"} {
		var answer map[string]any
		w.get(t, "com.atproto.sync."+method, url.Values{"did": {alice}}, &answer)
		if len(answer) == 0 {
			t.Errorf("%s: %v", method, answer)
		}
	}
	var e refused
	for _, path := range []string{"/stream?snapshot=true", "/collections/app.test.a/records"} {
		if res := call(t, "GET", w.public.URL+path, "", nil, &e); res.StatusCode != 501 || e.Error != "EventsOnly" {
			t.Errorf("%s: %d %+v", path, res.StatusCode, e)
		}
	}
	if res := call(t, "GET", w.public.URL+"/counts", "", nil, nil); res.StatusCode != 200 {
		t.Errorf("counts: %d", res.StatusCode)
	}
	w.subscribe(t, "PUT", "/subscriptions/a", `{"start":"snapshot"}`, 501)
	w.subscribe(t, "PUT", "/subscriptions/a", `{"start":"oldest"}`, 201)
	json := map[string]string{"Content-Type": "application/json"}
	if res := call(t, "PATCH", w.admin.URL+"/filter", `{"store":"all"}`, json, &e); res.StatusCode != 400 || !strings.Contains(e.Message, "wanted") {
		t.Errorf("store all: %d %+v", res.StatusCode, e)
	}
	var stats struct{ Ephemeral bool }
	if call(t, "GET", w.public.URL+"/stats", "", nil, &stats); !stats.Ephemeral {
		t.Error("/stats does not say that the store is ephemeral")
	}
	var other map[string]any
	if call(t, "GET", newWorld(t, api.Options{}).public.URL+"/stats", "", nil, &other); other["ephemeral"] != nil {
		t.Errorf("/stats of a store with records: ephemeral is %v", other["ephemeral"])
	}
}
