package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"cistern/api"
	"cistern/api/admin"
	"cistern/backfill/pace"
	"cistern/store"
)

// hostAnswer is what tests read of a host.
type hostAnswer struct {
	Host, State  string
	Accounts     int64
	Queued       int64
	InFlight     int    `json:"in_flight"`
	ParkedUntil  string `json:"parked_until"`
	LastError    string `json:"last_error"`
	LastErrorAt  string `json:"last_error_at"`
	Bytes        int64
	ReposFetched int64 `json:"repos_fetched"`
	Limits       struct {
		Concurrency    int
		ConcurrencyMax int `json:"concurrency_max"`
		PerSecond      int `json:"per_second"`
		Told           []struct{ Remaining int }
	}
	Override pace.Override
	Message  string
}

// TestHosts: hosts are listed in pages and by state, shown under any spelling of their names, and
// their settings are stored and announced.
func TestHosts(t *testing.T) {
	t.Parallel()
	changed := map[uint32]int{}
	now := time.Now()
	var w *world
	w = newWorld(t, api.Options{Hosts: admin.Hosts{
		Changed: func(id uint32) { changed[id]++ },
		Standing: func(id uint32) admin.HostStanding {
			h, _ := w.store.HostByID(id)
			var l pace.Limiter
			l.Configure(pace.Override(h.Limits).Over(pace.Limits{Min: 1, Max: 10}), h.Banned)
			s := admin.HostStanding{View: l.View(now), Bytes: 5, Repos: 1}
			if id == 2 {
				s.ParkedUntil, s.Running, s.Error, s.ErrorAt = now.Add(time.Minute), 3, "went away", time.Unix(1790000000, 5)
				s.Told = []pace.Quota{{Limit: 10, Remaining: 4, Reset: now.Add(time.Hour)}}
			}
			return s
		}}})
	for i := range 7 {
		if _, err := w.store.HostID(fmt.Sprintf("h%d.test", i+1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.store.NoteHosts([]uint32{2}, func(_ uint32, row *store.HostRow) {
		row.Bytes, row.Repos, row.Error, row.ErrorAt = 100, 7, "old", 1780000000
	}); err != nil {
		t.Fatal(err)
	}
	array := map[string]string{"Accept": "application/json"}
	var names []string
	for cursor := ""; ; {
		var page []hostAnswer
		resp := call(t, "GET", w.admin.URL+"/hosts?limit=3&cursor="+cursor, "", array, &page)
		for _, h := range page {
			names = append(names, h.Host)
		}
		if cursor = resp.Header.Get("Cistern-Next-Cursor"); cursor == "" {
			break
		}
	}
	if got := strings.Join(names, " "); got != "h1.test h2.test h3.test h4.test h5.test h6.test h7.test" {
		t.Errorf("listed: %s", got)
	}
	var h hostAnswer
	for _, name := range []string{"h2.test", "H2.test.", "h2.test:443"} {
		h = hostAnswer{}
		if resp := call(t, "GET", w.admin.URL+"/hosts/"+name, "", nil, &h); resp.StatusCode != 200 || h.Host != "h2.test" || h.State != "parked" ||
			h.InFlight != 3 || h.ParkedUntil == "" || h.LastError != "went away" || h.LastErrorAt != "2026-09-21T14:13:20Z" || h.Bytes != 105 || h.ReposFetched != 8 || len(h.Limits.Told) != 1 || h.Limits.Told[0].Remaining != 4 {
			t.Errorf("%s: %d %+v", name, resp.StatusCode, h)
		}
	}
	h = hostAnswer{}
	call(t, "PUT", w.admin.URL+"/hosts/h3.test/limits", `{"concurrency":2,"per_second":9}`, jsonType, &h)
	if h.Limits.ConcurrencyMax != 2 || h.Limits.PerSecond != 9 || h.Override != (pace.Override{Concurrency: 2, PerSecond: 9}) || changed[3] != 1 {
		t.Errorf("limited: %+v, changed %v", h, changed)
	}
	call(t, "PUT", w.admin.URL+"/hosts/h3.test/ban", "", jsonType, &h)
	if _, err := w.store.HostID("unmet.test"); err != nil {
		t.Fatal(err)
	}
	call(t, "PUT", w.admin.URL+"/hosts/unmet.test/ban", "", jsonType, &h)
	for state, want := range map[string]string{"banned": "h3.test unmet.test", "parked": "h2.test", "ok": "h1.test h4.test h5.test h6.test h7.test", "failing": ""} {
		var page []hostAnswer
		call(t, "GET", w.admin.URL+"/hosts?state="+state, "", array, &page)
		names = nil
		for _, h := range page {
			names = append(names, h.Host)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %s", state, got)
		}
	}
	h = hostAnswer{}
	call(t, "DELETE", w.admin.URL+"/hosts/h3.test/ban", "", jsonType, &h)
	if h.State != "ok" || h.Override.Concurrency != 2 {
		t.Errorf("ban lifted: %+v", h)
	}
	h = hostAnswer{}
	call(t, "DELETE", w.admin.URL+"/hosts/h3.test/limits", "", jsonType, &h)
	if h.Limits.ConcurrencyMax != 10 || h.Override != (pace.Override{}) {
		t.Errorf("limits lifted: %+v", h)
	}
}

// TestHostRefusals: errors name the invalid value.
func TestHostRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	for _, name := range []string{"a.test", "pds.example.test", "relay.example.test"} {
		if _, err := w.store.HostID(name); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"GET", "/hosts/none.test", "", 404, "none.test"},
		{"GET", "/hosts/not_a%20host", "", 400, "not_a host"},
		{"GET", "/hosts?state=lost", "", 400, "lost"},
		{"GET", "/hosts?limit=many", "", 400, "many"},
		{"GET", "/hosts?cursor=a%2Fb", "", 400, "a/b"},
		{"PUT", "/hosts/none.test/limits", `{}`, 400, "no limit"},
		{"PUT", "/hosts/none.test/limits", `{"concurrency":-1}`, 400, "concurrency -1"},
		{"PUT", "/hosts/none.test/limits", `{"per_day":1.5}`, 400, "per_day"},
		{"PUT", "/hosts/none.test/limits", `{"speed":1}`, 400, "speed"},
		{"PUT", "/hosts/a%20b/limits", `{"concurrency":1}`, 400, "a b"},
		{"PUT", "/hosts/none.test/limits", `{"concurrency":1}`, 404, `no host "none.test" is known`},
		{"PUT", "/hosts/pds.exmple.test/limits", `{"concurrency":1}`, 404, `no host "pds.exmple.test" is known; did you mean "pds.example.test"?`},
		{"PUT", "/hosts/none.test/ban", "", 404, "none.test"},
		{"DELETE", "/hosts/none.test/limits", "", 404, "none.test"},
		{"DELETE", "/hosts/none.test/ban", "", 404, "none.test"},
		{"PUT", "/hosts/a%20b/ban", "", 400, "a b"},
		{"POST", "/hosts/none.test/ban", "", http.StatusMethodNotAllowed, "PUT"},
	} {
		var e struct{ Error, Message string }
		resp := call(t, c.method, w.admin.URL+c.path, c.body, jsonType, &e)
		if resp.StatusCode != c.status || !strings.Contains(e.Message, c.says) {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, resp.StatusCode, e.Message)
		}
	}
	if _, err := w.store.HostNamed("none.test"); err == nil {
		t.Error("a refused change made a host known")
	}
}
