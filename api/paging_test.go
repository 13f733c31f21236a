package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"cistern/api"
	"cistern/api/deliver/delivertest"
	"cistern/ingest/repo"
	"cistern/store/storetest"

	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"
)

// Pages of any size, joined, are the list, in both directions, with adjacent collections whose
// names are prefixes of each other.
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
			if len(page.Records) > limit || (page.Cursor == "") != (len(page.Records) == 0) {
				rt.Fatalf("page of %d for limit %d with cursor %q", len(page.Records), limit, page.Cursor)
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

// A cursor that is not a record key is a position among them too.
func TestListRecordsAnyCursor(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	keys := []string{"-", "1", "a", "b", "~"}
	m := storetest.Records{"app.test.0/x": storetest.Text("near"), "app.test.a0/x": storetest.Text("near")}
	for _, k := range keys {
		m["app.test.a/"+k] = storetest.Text(k)
	}
	w.hold(t, alice, m)
	for _, cursor := range []string{" ", "a/b", "a!", "~~~", "é", "\x00", "\xff", "../", strings.Repeat("a", 600)} {
		for _, reverse := range []bool{false, true} {
			var want, got []string
			for _, k := range keys {
				if reverse && k > cursor || !reverse && k < cursor {
					want = append(want, k)
				}
			}
			if !reverse {
				slices.Reverse(want)
			}
			var page listed
			w.get(t, "com.atproto.repo.listRecords", url.Values{"repo": {alice}, "collection": {"app.test.a"}, "cursor": {cursor}, "reverse": {strconv.FormatBool(reverse)}}, &page)
			for _, rec := range page.Records {
				got = append(got, strings.TrimPrefix(rec.URI, "at://"+alice+"/app.test.a/"))
			}
			if !slices.Equal(got, want) {
				t.Errorf("cursor %q, reverse %t: got %q, want %q", cursor, reverse, got, want)
			}
		}
	}
}

// A client that pages while repositories are added misses no earlier one.
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
	// The cursor of the last page is where a client goes on when there are more.
	w.hold(t, storetest.DID(6), storetest.Records{"app.test.a/x": storetest.Text("x")})
	var more struct{ Repos []struct{ DID string } }
	if w.get(t, "com.atproto.sync.listRepos", q, &more); len(more.Repos) != 1 || more.Repos[0].DID != storetest.DID(6) {
		t.Errorf("after the last cursor: %+v", more)
	}
	if len(got) != want+1 || got[0] != storetest.DID(1000) || got[want] != storetest.DID(5) {
		t.Errorf("got %d: %q", len(got), got)
	}
}

// A page ends with the record that makes it long, however much the records grow on their way to
// JSON, and the next goes on behind that.
func TestListRecordsPageBytes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	const size, n = 400_000, 6 // 5.6 MB of JSON
	m := storetest.Records{}
	for i := range n {
		m[fmt.Sprintf("app.test.a/%d", i)] = delivertest.BlownUp(size + i)
	}
	w.hold(t, alice, m)
	q := url.Values{"repo": {alice}, "collection": {"app.test.a"}, "limit": {"5"}, "reverse": {"true"}}
	uri := regexp.MustCompile(`"uri":"at://[^"]*/app.test.a/(.)"`)
	got, pages := "", 0
	for cursor := "start"; cursor != ""; pages++ {
		var text string
		call(t, "GET", w.public.URL+"/xrpc/com.atproto.repo.listRecords?"+q.Encode(), "", nil, &text)
		if len(text) > 8<<20+15*size {
			t.Errorf("a page of %d bytes", len(text))
		}
		for _, match := range uri.FindAllStringSubmatch(text, -1) {
			got += match[1]
		}
		_, cursor, _ = strings.Cut(text[len(text)-min(len(text), 40):], `],"cursor":"`)
		cursor = strings.TrimSuffix(cursor, `"}`)
		q.Set("cursor", cursor)
	}
	if got != "012345" || pages < 3 {
		t.Errorf("%d pages with %s", pages, got)
	}
}

// TestListRecordsAtATime: lists of several repositories at a time do not mix, though their bodies
// share memory one after the other.
func TestListRecordsAtATime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	var group errgroup.Group
	for n := range 8 {
		did, m := storetest.DID(n), storetest.Records{}
		for i := range 100 {
			m[fmt.Sprintf("app.test.a/%03d", i)] = storetest.Text(strings.Repeat(string(rune('a'+n)), 200))
		}
		w.hold(t, did, m)
		path := w.public.URL + "/xrpc/com.atproto.repo.listRecords?limit=100&collection=app.test.a&repo=" + did
		group.Go(func() error {
			for range 20 {
				var page listed
				res, err := http.Get(path)
				if err != nil {
					return err
				}
				err = json.NewDecoder(res.Body).Decode(&page)
				res.Body.Close()
				if err != nil || len(page.Records) != 100 {
					return fmt.Errorf("a page of %d records, %v", len(page.Records), err)
				}
				for i, rec := range page.Records {
					want := storetest.Text(strings.Repeat(string(rune('a'+n)), 200))
					if rec.URI != fmt.Sprintf("at://%s/app.test.a/%03d", did, 99-i) || rec.CID != repo.HashCID(want).String() ||
						!strings.Contains(string(rec.Value), strings.Repeat(string(rune('a'+n)), 200)) {
						return fmt.Errorf("a list of %s has %+v", did, rec)
					}
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}
