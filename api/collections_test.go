package api_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"cistern/api"
	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
)

// collected is a record of a list over all accounts.
type collected struct {
	DID, Collection, Rkey, CID, Rev string
	Value                           json.RawMessage
}

// collect reads a page of the records of a collection, and its cursor.
func (w *world) collect(t testing.TB, collection string, q url.Values) (page []collected, cursor string) {
	t.Helper()
	var text string
	res := call(t, "GET", w.public.URL+"/collections/"+collection+"/records?"+q.Encode(), "", nil, &text)
	if res.StatusCode != 200 {
		t.Fatalf("%v: %d %s", q, res.StatusCode, text)
	}
	if res.Header.Get("Content-Type") == "application/x-ndjson" {
		for line := range strings.Lines(text) {
			var one collected
			if err := json.Unmarshal([]byte(line), &one); err != nil {
				t.Fatal(err)
			}
			page = append(page, one)
		}
		return page, res.Header.Get("Cistern-Next-Cursor")
	}
	var body struct {
		Records []collected
		Cursor  string
	}
	if err := json.Unmarshal([]byte(text), &body); err != nil {
		t.Fatal(err)
	}
	return body.Records, body.Cursor
}

// pages reads all pages of a list, and calls between before each but the first.
func (w *world) pages(t testing.TB, collection string, q url.Values, between func()) (all []string) {
	t.Helper()
	limit, _ := strconv.Atoi(q.Get("limit"))
	for q.Del("cursor"); ; between() {
		page, cursor := w.collect(t, collection, q)
		if len(page) > limit || cursor == "" && len(page) > 0 {
			t.Fatalf("a page of %d for limit %d with cursor %q", len(page), limit, cursor)
		}
		for _, r := range page {
			if r.Collection != collection || r.CID == "" || r.Rev == "" || !strings.Contains(string(r.Value), r.Rkey) {
				t.Errorf("record %+v", r)
			}
			all = append(all, r.DID+" "+r.Rkey)
		}
		if cursor == "" {
			return all
		}
		q.Set("cursor", cursor)
	}
}

// crowd is a world of accounts with records in a collection, some of which change all the time.
type crowd struct {
	*world
	rng    *rand.Rand
	steady map[string]storetest.Records
	busy   map[string]storetest.Records
	next   int // number of the next account
}

func (c *crowd) records(n int) storetest.Records {
	m := storetest.Records{}
	for range n {
		// Several accounts have records of one key, and collections have names that begin alike.
		for _, collection := range []string{"app.test.a", "app.test.ab", "app.test.a0"}[:1+c.rng.IntN(3)] {
			rkey := storetest.Rev(c.rng.IntN(30))
			m[collection+"/"+rkey] = storetest.Text(rkey)
		}
	}
	return m
}

func (c *crowd) join(t testing.TB, group map[string]storetest.Records) {
	did := storetest.DID(1000 - c.next*7%1000)
	c.next++
	group[did] = c.records(1 + c.rng.IntN(6))
	c.hold(t, did, group[did])
}

// churn changes busy accounts, and records of steady ones that come and go.
func (c *crowd) churn(t testing.TB) {
	for range 1 + c.rng.IntN(3) {
		dids := slices.Sorted(maps.Keys(c.busy))
		did := dids[c.rng.IntN(len(dids))]
		switch c.rng.IntN(6) {
		case 0:
			if c.next < 60 {
				c.join(t, c.busy)
			}
		case 1:
			c.update(t, did, func(b *store.Batch, r *store.Repo) { r.Status = store.StatusTakendown; b.Account(r) })
		case 2:
			c.update(t, did, func(b *store.Batch, r *store.Repo) {
				if !r.Status.Hidden() {
					return
				}
				r.Status = store.StatusActive
				if err := b.Relist(r); err != nil {
					t.Error(err)
				}
			})
		case 3:
			c.one(t, "DELETE", "/repos?purge=true", did, "purged")
			delete(c.busy, did)
			c.join(t, c.busy)
		case 4:
			quiet := func(int64, int64) {}
			if err := errors.Join(c.store.Prune(t.Context(), quiet), c.store.CollectGarbage(t.Context(), quiet)); err != nil {
				t.Error(err)
			}
		default:
			rkey := "z" + storetest.Rev(c.rng.IntN(99))[1:] // in front of those that stay, or behind
			steady := slices.Sorted(maps.Keys(c.steady))
			did = steady[c.rng.IntN(len(steady))]
			m := c.steady[did]
			op := store.Op{Path: []byte("app.test.a/" + rkey)}
			if m[string(op.Path)] == nil {
				op.Record = storetest.Text(rkey)
				op.CID = repo.HashCID(op.Record)
			}
			c.commit(t, did, m, op)
		}
	}
}

// TestCollectionRecordsPaging: in every order, form and page size, a record that exists from the
// first page to the last is listed exactly once and in its place, whatever is written meanwhile; and
// if nothing is, the pages joined are the list.
func TestCollectionRecordsPaging(t *testing.T) {
	t.Parallel()
	for seed := range storetest.Seeds(4) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			c := &crowd{world: newWorldOn(t, storetest.Open(t, store.Options{RetentionBytes: 1 << 10}), api.Options{}), rng: rand.New(rand.NewPCG(seed, 8)),
				steady: map[string]storetest.Records{}, busy: map[string]storetest.Records{}}
			for range 6 {
				c.join(t, c.steady)
				c.join(t, c.busy)
			}
			for _, order := range []string{"repo", "time", "time reversed", "time of some"} {
				for range 4 {
					c.list(t, order)
				}
			}
		})
	}
}

func (c *crowd) list(t testing.TB, order string) {
	t.Helper()
	name, how, _ := strings.Cut(order, " ")
	q := url.Values{"order": {name}, "limit": {"1000"}, "format": {[]string{"json", "ndjson"}[c.rng.IntN(2)]}}
	stays := map[string]bool{} // records that exist all the time
	for did, m := range c.steady {
		if how == "of some" && c.rng.IntN(2) == 0 {
			continue
		}
		q.Add("did", did)
		for p := range m {
			if rkey, ok := strings.CutPrefix(p, "app.test.a/"); ok && rkey[0] != 'z' {
				stays[did+" "+rkey] = true
			}
		}
	}
	if how != "of some" {
		q.Del("did")
	}
	if how == "reversed" {
		q.Set("reverse", "true")
	}
	staying := func(all []string) (out []string) {
		for _, r := range all {
			if stays[r] {
				out = append(out, r)
			}
		}
		return out
	}
	want := c.pages(t, "app.test.a", q, func() {})
	c.inOrder(t, order, want)
	if len(staying(want)) != len(stays) {
		t.Errorf("%s: %d of %d records that stay are listed", order, len(staying(want)), len(stays))
	}
	q.Set("limit", fmt.Sprint(1+c.rng.IntN(9)))
	if d := cmp.Diff(want, c.pages(t, "app.test.a", q, func() {})); d != "" {
		t.Errorf("%s, %v (-whole +paged):\n%s", order, q, d)
	}
	got := c.pages(t, "app.test.a", q, func() { c.churn(t) })
	if d := cmp.Diff(staying(want), staying(got)); d != "" {
		t.Errorf("%s, %v, with changes (-before +paged):\n%s", order, q, d)
	}
}

// inOrder checks the order of a list by record key.
func (c *crowd) inOrder(t testing.TB, order string, all []string) {
	t.Helper()
	keys := make([]string, len(all))
	for i, r := range all {
		did, rkey, _ := strings.Cut(r, " ")
		keys[i] = fmt.Sprintf("%s %020d", rkey, c.row(t, did).Ordinal)
	}
	switch order {
	case "repo":
		return
	case "time reversed":
	default:
		slices.Reverse(keys)
	}
	if !slices.IsSorted(keys) || len(slices.Compact(keys)) != len(all) {
		t.Errorf("%s: %q", order, all)
	}
}

// Totals and arrivals are answered as the store counts them, without hidden accounts.
func TestCollectionTotals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	text := storetest.Text
	w.hold(t, alice, storetest.Records{"app.test.a/1": text("x"), "app.test.a/2": text("y"), "app.test.b/1": text("z")})
	w.hold(t, bob, storetest.Records{"app.test.a/1": text("x")})
	w.hold(t, carol, storetest.Records{"app.test.a/1": text("x"), "app.test.c/1": text("x")})
	w.update(t, carol, func(b *store.Batch, r *store.Repo) { r.Status = store.StatusSuspended; b.Account(r) })
	today := time.Now().UTC().Format(time.DateOnly)
	for _, c := range []struct{ path, want string }{
		{"/collections", `{"cursor":"app.test.b","collections":[{"collection":"app.test.a","repositories":2,"records":3},{"collection":"app.test.b","repositories":1,"records":1}]}`},
		{"/collections?limit=1&cursor=app.test.a", `{"cursor":"app.test.b","collections":[{"collection":"app.test.b","repositories":1,"records":1}]}`},
		{"/collections?prefix=app.test.a", `{"cursor":"app.test.a","collections":[{"collection":"app.test.a","repositories":2,"records":3}]}`},
		{"/collections?cursor=app.test.b", `{"collections":[]}`},
		{"/collections/app.test.a", `{"collection":"app.test.a","repositories":2,"records":3,"days":[{"day":"` + today + `","created":4,"updated":0,"deleted":0}]}`},
		{"/collections/app.test.c?days=1", `{"collection":"app.test.c","repositories":0,"records":0,"days":[{"day":"` + today + `","created":1,"updated":0,"deleted":0}]}`},
		{"/collections/app.test.d", `{"collection":"app.test.d","repositories":0,"records":0,"days":[]}`},
		{"/counts?days=0", `{"collections":2,"repositories":2,"records":4,"days":[]}`},
		{"/counts", `{"collections":2,"repositories":2,"records":4,"days":[{"day":"` + today + `","created":6,"updated":0,"deleted":0}]}`},
	} {
		var got string
		if call(t, "GET", w.public.URL+c.path, "", nil, &got); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.path, got, c.want)
		}
	}
	var item struct {
		Collections  int
		ByCollection map[string]int `json:"by_collection"`
	}
	call(t, "GET", w.admin.URL+"/repos/"+alice, "", nil, &item)
	if d := cmp.Diff(map[string]int{"app.test.a": 2, "app.test.b": 1}, item.ByCollection); d != "" || item.Collections != 2 {
		t.Errorf("%d collections, %s", item.Collections, d)
	}
}

// What a list of records does not take is refused by name.
func TestCollectionRecordsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	for n := range 2 {
		w.hold(t, storetest.DID(10+n), storetest.Records{"app.test.a/1": storetest.Text("x")})
	}
	for _, c := range []struct{ query, name, says string }{
		{"order=other", "InvalidRequest", "other"},
		{"format=xml", "InvalidRequest", "xml"},
		{"reverse=true", "InvalidRequest", "reverse"},
		{"did=" + alice, "InvalidRequest", "order=time"},
		{"order=time&did=x", "InvalidRequest", `"x"`},
		{"cursor=x", "InvalidRequest", `"x"`},
		{"cursor=99999999999999/x", "InvalidRequest", "99999999999999"},
		{"cursor=1/é", "InvalidRequest", "cursor"},
		{"order=time&cursor=1/x", "InvalidRequest", "cursor"},
		{"order=time&cursor=1/99999999999999", "InvalidRequest", "cursor"},
		{"limit=1001", "InvalidRequest", "1001"},
		{"order=time" + strings.Repeat("&did="+alice, 101), "InvalidRequest", "101 times"},
	} {
		var e refused
		res := call(t, "GET", w.public.URL+"/collections/app.test.a/records?"+c.query, "", nil, &e)
		if res.StatusCode != 400 || e.Error != c.name || !strings.Contains(e.Message, c.says) {
			t.Errorf("%s: %d %+v, want %s … %s", c.query, res.StatusCode, e, c.name, c.says)
		}
	}
	page, _ := w.collect(t, "app.test.a", url.Values{"order": {"time"}, "did": {storetest.DID(10), storetest.DID(11), bob}})
	if len(page) != 2 {
		t.Errorf("%d records of two accounts", len(page))
	}
}
