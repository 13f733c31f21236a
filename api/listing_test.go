package api_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"cistern/api"
	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"
)

// listing is a list endpoint with its parameters.
type listing struct {
	name, method string
	q            url.Values
	most         int // largest limit
	falling      bool
	// key returns what an item is ordered by, and the name by which the test knows the item.
	key func(item json.RawMessage) (key, name string)
}

// all reads a list by pages, and calls between before each page but the first. It checks the order
// and the cursors.
func (l *listing) all(t testing.TB, w *world, limit int, between func()) (names []string) {
	t.Helper()
	q := url.Values{"limit": {strconv.Itoa(limit)}}
	for k, v := range l.q {
		q[k] = v
	}
	last := ""
	for page := 0; ; page++ {
		if page > 0 {
			between()
		}
		var body map[string]json.RawMessage
		w.get(t, l.method, q, &body)
		var cursor string
		var items []json.RawMessage
		for field, value := range body {
			var err error
			if field == "cursor" {
				err = json.Unmarshal(value, &cursor)
			} else {
				err = json.Unmarshal(value, &items)
			}
			if err != nil {
				t.Fatalf("%s: %s is %s: %v", l.name, field, value, err)
			}
		}
		if len(items) > limit || (cursor == "") != (len(items) == 0) {
			t.Fatalf("%s by %d: a page of %d with cursor %q", l.name, limit, len(items), cursor)
		}
		if len(items) == 0 {
			return names
		}
		for _, item := range items {
			key, name := l.key(item)
			if last != "" && (key >= last) != !l.falling || key == last {
				t.Fatalf("%s by %d: %s after %s", l.name, limit, key, last)
			}
			last = key
			names = append(names, name)
		}
		q.Set("cursor", cursor)
	}
}

// lists is a world whose lists change while they are read. Accounts with an even number and records
// whose key begins with s stay as they are.
type lists struct {
	*world
	rng  *rand.Rand
	next int // number of the next account
}

const listAccounts = 24

func newLists(t testing.TB, seed uint64) *lists {
	t.Helper()
	l := &lists{rng: rand.New(rand.NewPCG(seed, 1)), world: &world{store: storetest.Open(t, store.Options{RetentionBytes: 1})}}
	var err error
	if l.server, err = api.New(api.Options{Store: l.store}); err != nil {
		t.Fatal(err)
	}
	l.public, l.admin = httptest.NewServer(l.server.Public()), httptest.NewServer(l.server.Admin())
	t.Cleanup(l.public.Close)
	t.Cleanup(l.admin.Close)
	for range listAccounts {
		l.account(t)
	}
	return l
}

// account adds an account. The first one has many records, the others some.
func (l *lists) account(t testing.TB) {
	t.Helper()
	m := storetest.Records{}
	n := 1
	if l.next == 0 {
		n = 120
	}
	for i := range n {
		m[fmt.Sprintf("app.test.a/s%03d", i)] = storetest.Text(fmt.Sprint(l.next, i))
	}
	if l.next%3 == 0 {
		m["app.test.b/s"] = storetest.Text("b")
	}
	if l.next%4 == 0 {
		m["app.test.c/s"] = storetest.Text("c")
		delete(m, "app.test.a/s000")
	}
	l.hold(t, storetest.DID(l.next), m)
	if _, err := l.store.HostID(fmt.Sprintf("host%d.example.com", l.next*7%101)); err != nil {
		t.Fatal(err)
	}
	l.next++
}

// commit creates and deletes records, but not the records that stay.
func (l *lists) commit(t testing.TB, did string) {
	t.Helper()
	l.update(t, did, func(b *store.Batch, r *store.Repo) {
		if r.Ordinal == 0 {
			return
		}
		var ops []store.Op
		for i := range 4 {
			op := store.Op{Path: fmt.Appendf(nil, "app.test.%c/%c%03d", "abc"[l.rng.IntN(3)], "rtv"[l.rng.IntN(3)], 10*i+l.rng.IntN(10))}
			if l.rng.IntN(2) == 0 {
				op.Record = storetest.Text(fmt.Sprint(l.rng.IntN(1000)))
				op.CID = repo.HashCID(op.Record)
			}
			if len(ops) == 0 || string(ops[len(ops)-1].Path) < string(op.Path) {
				ops = append(ops, op)
			}
		}
		l.revs++
		if err := b.Apply(r, true, storetest.Rev(l.revs), ops); err != nil {
			t.Error(err)
		}
		r.Rev = storetest.Rev(l.revs)
		r.Commit = storetest.Commit(did, r.Rev, r.Data)
	})
}

// change changes something that does not stay, and prunes the log.
func (l *lists) change(t testing.TB) {
	t.Helper()
	odd := storetest.DID(2*l.rng.IntN(l.next/2) + 1)
	row, err := l.store.Repo(odd)
	if err != nil {
		t.Fatal(err)
	}
	switch l.rng.IntN(8) {
	case 0, 1:
		l.commit(t, storetest.DID(0))
	case 2:
		l.commit(t, storetest.DID(l.rng.IntN(l.next)))
	case 3:
		l.update(t, odd, func(b *store.Batch, r *store.Repo) {
			r.Status = []store.Status{store.StatusActive, store.StatusTakendown, store.StatusDeactivated}[l.rng.IntN(3)]
			b.Account(r)
		})
	case 4:
		if row.Ordinal != 0 && l.rng.IntN(3) == 0 {
			l.one(t, "DELETE", "/repos?purge=true", odd, "purged")
		}
	case 5:
		if l.next < 2*listAccounts {
			l.account(t)
		}
	case 6:
		if err := l.store.Prune(t.Context(), func(int64, int64) {}); err != nil {
			t.Fatal(err)
		}
	case 7:
		if err := l.store.CollectGarbage(t.Context(), func(int64, int64) {}); err != nil {
			t.Fatal(err)
		}
	}
}

// listings returns every list endpoint, in every order.
func listings() []*listing {
	rkey := func(item json.RawMessage) (string, string) {
		var rec struct{ URI string }
		_ = json.Unmarshal(item, &rec)
		key := rec.URI[strings.LastIndexByte(rec.URI, '/')+1:]
		return key, key
	}
	// The order of accounts and hosts is that of their creation, which the item does not have.
	place := 0
	did := func(item json.RawMessage) (string, string) {
		var r struct{ DID, Hostname string }
		_ = json.Unmarshal(item, &r)
		place++
		return fmt.Sprintf("%09d", place), r.DID + r.Hostname
	}
	records := url.Values{"repo": {storetest.DID(0)}, "collection": {"app.test.a"}}
	up := url.Values{"repo": records["repo"], "collection": records["collection"], "reverse": {"true"}}
	const byCollection = "com.atproto.sync.listReposByCollection"
	return []*listing{
		{"records", "com.atproto.repo.listRecords", records, 100, true, rkey},
		{"records, reverse", "com.atproto.repo.listRecords", up, 100, false, rkey},
		{"repos", "com.atproto.sync.listRepos", nil, 1000, false, did},
		{"repos of all collections", byCollection, nil, 2000, false, did},
		{"repos of b", byCollection, url.Values{"collection": {"app.test.b"}}, 2000, false, did},
		{"repos of b or c", byCollection, url.Values{"collection": {"app.test.c", "app.test.b", "app.test.none"}}, 2000, false, did},
		{"hosts", "com.atproto.sync.listHosts", nil, 1000, false, did},
	}
}

// stays reports whether an item is one that nothing changes.
func stays(name string) bool {
	for i := 0; i < listAccounts; i += 2 {
		if name == storetest.DID(i) {
			return true
		}
	}
	return strings.HasPrefix(name, "s") || strings.HasPrefix(name, "host")
}

// Pages of any size, joined, are the list, whatever changes between them: what stays comes once and
// in its place, and nothing comes twice. Once nothing changes, they are the whole list.
func TestListsByPages(t *testing.T) {
	t.Parallel()
	for seed := range storetest.Seeds(6) {
		l := newLists(t, seed)
		for range 40 {
			l.change(t)
		}
		for _, list := range listings() {
			var want []string
			for _, name := range list.all(t, l.world, list.most, func() {}) {
				if stays(name) {
					want = append(want, name)
				}
			}
			if len(want) < 4 {
				t.Fatalf("seed %d: %s has %d items that stay", seed, list.name, len(want))
			}
			for _, limit := range []int{1, 2, 3, 7, 50, list.most} {
				got := list.all(t, l.world, limit, func() { l.change(t) })
				seen := map[string]bool{}
				for _, name := range got {
					if seen[name] {
						t.Errorf("seed %d: %s by %d: %s comes twice", seed, list.name, limit, name)
					}
					seen[name] = true
				}
				got = slices.DeleteFunc(got, func(name string) bool { return !stays(name) || !slices.Contains(want, name) })
				if !slices.Equal(got, want) {
					t.Errorf("seed %d: %s by %d: got %q, want %q", seed, list.name, limit, got, want)
				}
			}
			whole := list.all(t, l.world, list.most, func() {})
			for limit := 1; limit < min(len(whole)+2, list.most); limit += 1 + limit/4 {
				if got := list.all(t, l.world, limit, func() {}); !slices.Equal(got, whole) {
					t.Errorf("seed %d: %s by %d at rest: got %q, want %q", seed, list.name, limit, got, whole)
				}
			}
		}
		l.compareCollections(t, seed)
	}
}

// compareCollections compares the lists of accounts by collection with what describeRepo says of
// each account.
func (l *lists) compareCollections(t testing.TB, seed uint64) {
	t.Helper()
	for _, list := range listings() {
		if list.method != "com.atproto.sync.listReposByCollection" {
			continue
		}
		var want []string
		for i := range l.next {
			row, err := l.store.Repo(storetest.DID(i))
			if err != nil || row.Ordinal == 0 || row.Status.Hidden() {
				continue
			}
			var described struct{ Collections []string }
			l.get(t, "com.atproto.repo.describeRepo", url.Values{"repo": {row.DID}}, &described)
			has := func(c string) bool { return slices.Contains(described.Collections, c) }
			if list.q == nil || slices.ContainsFunc(list.q["collection"], has) {
				want = append(want, row.DID)
			}
		}
		got := list.all(t, l.world, list.most, func() {})
		slices.Sort(got)
		if slices.Sort(want); !slices.Equal(got, want) {
			t.Errorf("seed %d: %s: got %q, want %q", seed, list.name, got, want)
		}
	}
}

// A page passes hidden accounts, and is empty at the end only.
func TestListByCollectionPassesHidden(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	for i := range 30 {
		w.hold(t, storetest.DID(i), storetest.Records{"app.test.a/one": storetest.Text("x")})
		if i%10 != 9 {
			w.update(t, storetest.DID(i), func(b *store.Batch, r *store.Repo) { r.Status = store.StatusTakendown; b.Account(r) })
		}
	}
	list := listings()[slices.IndexFunc(listings(), func(l *listing) bool { return l.name == "repos of b" })]
	list.q = url.Values{"collection": {"app.test.a"}}
	if got := list.all(t, w, 1, func() {}); !slices.Equal(got, []string{storetest.DID(9), storetest.DID(19), storetest.DID(29)}) {
		t.Errorf("got %q", got)
	}
	// More than one call of the store passes.
	const n = 1200
	for i := range n {
		w.add(t, storetest.DID(100+i))
		im := storetest.Records{"app.test.z/one": storetest.Text("x")}.Import(w.row(t, storetest.DID(100+i)), storetest.Rev(1))
		im.Done = func(_ store.Repo, err error) {
			if err != nil {
				t.Errorf("import: %v", err)
			}
		}
		if err := w.store.Import(t.Context(), im); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.store.FlushImports(); err != nil {
		t.Fatal(err)
	}
	for i := range n - 1 {
		w.update(t, storetest.DID(100+i), func(_ *store.Batch, r *store.Repo) { r.Status = store.StatusTakendown })
	}
	list.q = url.Values{"collection": {"app.test.z"}}
	if got := list.all(t, w, 1, func() {}); !slices.Equal(got, []string{storetest.DID(100 + n - 1)}) {
		t.Errorf("behind %d hidden accounts: %q", n-1, got)
	}
	many := url.Values{"collection": slices.Repeat([]string{"app.test.a"}, 33)}
	w.refuses(t, list.method, many, 400, "InvalidRequest", "33 times")
	w.refuses(t, list.method, url.Values{"collection": {"app.test.a", "a"}}, 400, "InvalidRequest", `"a" is not an NSID`)
	w.refuses(t, list.method, url.Values{"limit": {"1", "2"}}, 400, "InvalidRequest", `"limit" is given 2 times`)
}
