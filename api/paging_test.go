package api_test

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"cistern/api"
	"cistern/store/storetest"

	"pgregory.net/rapid"
)

// Pages of any size, joined, are the list, in both directions, with collections next to one another
// whose names are prefixes of each other.
func TestListRecordsPaging(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		did := storetest.DID(n)
		keys := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z0-9:~_-]{1,3}`), 1, 60, rapid.ID).Draw(rt, "keys")
		m := storetest.Records{}
		for i, k := range keys {
			m["app.test.a/"+k] = storetest.Text(fmt.Sprint(i))
			m["app.test.ab/"+k], m["app.test.a0/"+k] = storetest.Text("near"), storetest.Text("near")
		}
		w.hold(t, did, m)
		slices.Sort(keys)
		reverse := rapid.Bool().Draw(rt, "reverse")
		if !reverse {
			slices.Reverse(keys)
		}
		limit := rapid.IntRange(1, 70).Draw(rt, "limit")
		var got []string
		q := url.Values{"repo": {did}, "collection": {"app.test.a"}, "limit": {strconv.Itoa(limit)}, "reverse": {strconv.FormatBool(reverse)}}
		for {
			var page listed
			w.get(t, "com.atproto.repo.listRecords", q, &page)
			for _, rec := range page.Records {
				got = append(got, strings.TrimPrefix(rec.URI, "at://"+did+"/app.test.a/"))
			}
			if len(page.Records) > limit || page.Cursor != "" && len(page.Records) < limit {
				rt.Fatalf("page of %d for limit %d", len(page.Records), limit)
			}
			if page.Cursor == "" {
				break
			}
			q.Set("cursor", page.Cursor)
		}
		if !slices.Equal(keys, got) {
			rt.Fatalf("got %q, want %q", got, keys)
		}
	})
}

// A client that pages while repositories are added misses none that stood there.
func TestListReposPaging(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	want := 20
	for i := range want {
		w.hold(t, storetest.DID(1000-i), storetest.Records{"app.test.a/x": storetest.Text("x")})
	}
	q := url.Values{"limit": {"7"}}
	var got []string
	for {
		var page struct {
			Cursor string
			Repos  []struct{ DID string }
		}
		w.get(t, "com.atproto.sync.listRepos", q, &page)
		for _, r := range page.Repos {
			got = append(got, r.DID)
		}
		if page.Cursor == "" {
			break
		}
		q.Set("cursor", page.Cursor)
		if len(got) == 7 {
			w.hold(t, storetest.DID(5), storetest.Records{"app.test.a/x": storetest.Text("x")})
		}
	}
	if len(got) != want+1 || got[0] != storetest.DID(1000) || got[want] != storetest.DID(5) {
		t.Errorf("got %d: %q", len(got), got)
	}
}
