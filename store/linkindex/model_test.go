package linkindex_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"cistern/filter"
	"cistern/links"
	"cistern/store"
	"cistern/store/linkindex"
	"cistern/store/storetest"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"
)

// history drives a store with random changes, and an index over it, both on a file system that is
// cloned as crashes would leave it.
type history struct {
	t     *testing.T
	rng   *rand.Rand
	fs    *storetest.CrashFS
	store *store.Store
	index *linkindex.Index
	small int // rows up to which a run is a batch
	clock time.Time

	steps  int // until a crash; 0: none is planned
	clones []*storetest.CrashFS
	met    map[string]int
}

const repos = 8

// targets of the records: few, so that they have many links.
func target(n int) string {
	switch n % 3 {
	case 0:
		return storetest.DID(n)
	case 1:
		return fmt.Sprint("https://example.com/", n)
	}
	return fmt.Sprintf("at://%s/app.test.c0/%s", storetest.DID(1+n%repos), storetest.Rev(n))
}

const targets = 12

// record returns a record with up to five links, some of them equal.
func (h *history) record() []byte {
	m := map[string]any{"text": fmt.Sprint("text ", h.rng.IntN(4))}
	if h.rng.IntN(3) > 0 {
		m["subject"] = map[string]string{"uri": target(h.rng.IntN(targets))}
	}
	if h.rng.IntN(3) == 0 {
		var all []any
		for range h.rng.IntN(4) {
			all = append(all, target(h.rng.IntN(targets)))
		}
		m["list"] = all
	}
	enc, err := cbor.CanonicalEncOptions().EncMode()
	if err != nil {
		h.t.Fatal(err)
	}
	b, err := enc.Marshal(m)
	if err != nil {
		h.t.Fatal(err)
	}
	return b
}

// refilter changes which collections readers see, and then what is shown of some repositories.
func (h *history) refilter() {
	h.t.Helper()
	c := filter.Config{Store: filter.StoreAll}
	for n := range 4 {
		if h.rng.IntN(3) > 0 {
			c.Collections = append(c.Collections, fmt.Sprint("app.test.c", n))
		}
	}
	v, err := h.store.SetFilter(c)
	if err != nil {
		h.t.Fatal(err)
	}
	for n := range repos {
		did := storetest.DID(n + 1)
		r, err := h.store.RepoOrNew(did)
		if err != nil {
			h.t.Fatal(err)
		}
		if r.Ordinal == 0 || r.Status.Hidden() || h.rng.IntN(4) == 0 {
			continue
		}
		rows, err := h.store.Rows(r.Ordinal)
		if err != nil {
			h.t.Fatal(err)
		}
		var ops []store.Op
		for rows.Next() {
			ops = append(ops, store.Op{Path: slices.Clone(rows.Row().Path), Keep: true})
		}
		if err := rows.Close(); err != nil {
			h.t.Fatal(err)
		}
		before := h.store.Head()
		wait, err := h.store.UpdateRepo(did, func(b *store.Batch, r *store.Repo) error {
			r.Filter, r.Sweep = v.Selection, true
			err := b.Apply(r, false, r.Rev, ops)
			r.Sweep = false
			b.PutRepo(r)
			return err
		})
		if err := errors.Join(err, wait()); err != nil {
			h.t.Fatal(err)
		}
		h.met["events of a changed filter"] += int(h.store.Head() - before)
	}
}

// step notes a step of the store or of the index, where the next crash may be.
func (h *history) step(name string) {
	if h.steps--; h.steps == 0 {
		h.clones = append(h.clones, h.fs.Clone(h.rng, []int{0, 50, 100}[h.rng.IntN(3)]))
		h.met["crash at "+name]++
	}
}

func (h *history) open(fs *storetest.CrashFS) (*store.Store, *linkindex.Index) {
	h.t.Helper()
	s, err := store.Open(store.Options{Dir: "db", FS: fs, Step: h.step,
		Now:       func() time.Time { return h.clock },
		Retention: time.Hour, SubscriptionRetention: 2 * time.Hour})
	if err != nil {
		h.t.Fatal(err)
	}
	x, err := linkindex.OpenTuned(linkindex.Options{Store: s, Dir: "links", FS: fs, Step: h.step,
		RunBytes: 4096}, h.small, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	return s, x
}

func closeBoth(t *testing.T, s *store.Store, x *linkindex.Index) {
	t.Helper()
	if err := x.Close(); err != nil {
		t.Error(err)
	}
	storetest.Check(t, s)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// naive is the index as it is computed from all current records: target → source → at-uris.
type naive map[string]map[linkindex.Source][]linkindex.Record

func recompute(t *testing.T, s *store.Store) naive {
	t.Helper()
	all := naive{}
	for n := range repos {
		did := storetest.DID(n + 1)
		r, err := s.RepoOrNew(did)
		if err != nil {
			t.Fatal(err)
		}
		if r.Ordinal == 0 || r.Status.Hidden() {
			continue
		}
		collections, err := s.Collections(&r)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range collections {
			for _, rec := range storetest.List(t, s, &r, c, "", 1<<20, false) {
				found, err := links.Extract(nil, rec.Record)
				if err != nil {
					t.Fatal(err)
				}
				for _, l := range found {
					if all[l.Target] == nil {
						all[l.Target] = map[linkindex.Source][]linkindex.Record{}
					}
					at := linkindex.Source{Collection: c, Path: l.Path}
					one := linkindex.Record{DID: did, Collection: c, RKey: rec.Rkey}
					if !slices.Contains(all[l.Target][at], one) {
						all[l.Target][at] = append(all[l.Target][at], one)
					}
				}
			}
		}
	}
	return all
}

// compare compares all that the index answers with a recomputation.
func compare(t *testing.T, rng *rand.Rand, s *store.Store, x *linkindex.Index) {
	t.Helper()
	if st := x.State(); st.Building || st.Through != s.Head() || st.Epoch != s.Epoch() || st.Err != nil {
		t.Fatalf("state %+v, the head is %d", st, s.Head())
	}
	want := recompute(t, s)
	for n := range targets {
		subject := target(n)
		sources, err := x.Sources(subject)
		if err != nil {
			t.Fatal(err)
		}
		wantSources := map[linkindex.Source]linkindex.Counts{}
		for source, records := range want[subject] {
			wantSources[source] = linkindex.Counts{Records: int64(len(records)), DIDs: int64(len(dids(records)))}
			compareSource(t, rng, x, subject, source, records)
		}
		if d := cmp.Diff(wantSources, sources); d != "" {
			t.Errorf("sources of %s (-want +got):\n%s", subject, d)
		}
	}
	n, compared, err := x.Check(t.Context(), func(d string) { t.Error(d) })
	if n > 0 || !compared || err != nil {
		t.Errorf("check: %d differences, compared %t, %v", n, compared, err)
	}
}

func dids(records []linkindex.Record) []string {
	set := map[string]bool{}
	for _, r := range records {
		set[r.DID] = true
	}
	return slices.Sorted(maps.Keys(set))
}

// compareSource compares the pages of a target and a source.
func compareSource(t *testing.T, rng *rand.Rand, x *linkindex.Index, subject string, source linkindex.Source, want []linkindex.Record) {
	t.Helper()
	records, accounts, err := x.Count(subject, source)
	if err != nil || records != int64(len(want)) || accounts != int64(len(dids(want))) {
		t.Errorf("%s %v: counts %d, %d, %v; want %d, %d", subject, source, records, accounts, err, len(want), len(dids(want)))
	}
	newest := readRecords(t, x, subject, source, linkindex.Query{Limit: 1 + rng.IntN(10)})
	oldest := readRecords(t, x, subject, source, linkindex.Query{Limit: 1 + rng.IntN(10), Reverse: true})
	slices.Reverse(oldest)
	if d := cmp.Diff(newest, oldest); d != "" {
		t.Errorf("%s %v: newest first, and oldest first reversed:\n%s", subject, source, d)
	}
	var firsts []string // accounts in order of their newest link
	for _, r := range newest {
		if !slices.Contains(firsts, r.DID) {
			firsts = append(firsts, r.DID)
		}
	}
	if d := cmp.Diff(firsts, readDIDs(t, x, subject, source, 1+rng.IntN(4))); d != "" {
		t.Errorf("%s %v: accounts (-want +got):\n%s", subject, source, d)
	}
	chosen := []string{storetest.DID(1 + rng.IntN(repos)), storetest.DID(1 + rng.IntN(repos)), "did:plc:unknown"}
	var some []linkindex.Record
	for _, r := range newest {
		if slices.Contains(chosen, r.DID) {
			some = append(some, r)
		}
	}
	for _, reverse := range []bool{false, true} {
		got := readRecords(t, x, subject, source, linkindex.Query{DIDs: chosen, Limit: 1 + rng.IntN(5), Reverse: reverse})
		if d := cmp.Diff(some, got); d != "" {
			t.Errorf("%s %v of %v, reverse %t (-want +got):\n%s", subject, source, chosen, reverse, d)
		}
		slices.Reverse(some)
	}
	if d := cmp.Diff(slices.SortedFunc(slices.Values(want), cmpRecords), slices.SortedFunc(slices.Values(newest), cmpRecords)); d != "" {
		t.Errorf("%s %v: records (-want +got):\n%s", subject, source, d)
	}
}

func cmpRecords(a, b linkindex.Record) int {
	return slices.Compare([]string{a.DID, a.Collection, a.RKey}, []string{b.DID, b.Collection, b.RKey})
}

func readRecords(t *testing.T, x *linkindex.Index, subject string, source linkindex.Source, q linkindex.Query) (all []linkindex.Record) {
	t.Helper()
	for {
		page, next, err := x.Records(subject, source, q)
		if err != nil || len(page) > q.Limit {
			t.Fatalf("%d records, %v", len(page), err)
		}
		all = append(all, page...)
		if q.After = next; next == 0 {
			return all
		}
	}
}

func readDIDs(t *testing.T, x *linkindex.Index, subject string, source linkindex.Source, limit int) (all []string) {
	t.Helper()
	for after := linkindex.Cursor(0); ; {
		page, next, err := x.DIDs(subject, source, after, limit)
		if err != nil || len(page) > limit {
			t.Fatalf("%d accounts, %v", len(page), err)
		}
		all = append(all, page...)
		if after = next; next == 0 {
			return all
		}
	}
}

// TestModel: after random histories with crashes at every step of a write the index equals a
// recomputation from all current records, and so does each index that a crash has left, once it has
// caught up.
func TestModel(t *testing.T) {
	t.Parallel()
	storetest.WithoutRace(t)
	for i := range storetest.Seeds(4) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			seed := uint64(time.Now().UnixNano()) + i
			t.Logf("seed %d", seed)
			model(t, rand.New(rand.NewPCG(seed, 0)), []int{1, 30, 0}[i%3])
		})
	}
}

func model(t *testing.T, rng *rand.Rand, small int) {
	h := &history{t: t, rng: rng, fs: storetest.NewCrashFS(), small: small,
		clock: time.Unix(1_800_000_000, 0), met: map[string]int{}}
	h.store, h.index = h.open(h.fs)
	a := &storetest.Author{T: t, Store: h.store, Rand: rng, Repos: repos, Record: h.record}
	for range 8 {
		h.steps = 1 + rng.IntN(60)
		for range 5 + rng.IntN(25) {
			a.Step()
			if rng.IntN(20) == 0 {
				h.refilter()
			}
			if rng.IntN(8) == 0 { // stops anywhere, with what it has
				if err := h.index.CatchUp(t.Context(), func() bool { return rng.IntN(2) == 0 }); err != nil {
					t.Fatal(err)
				}
			}
		}
		if rng.IntN(4) == 0 { // events go that the index has, or has not
			h.clock = h.clock.Add(time.Duration(rng.IntN(4)) * time.Hour)
			if err := h.store.Prune(t.Context(), func(int64, int64) {}); err != nil {
				t.Fatal(err)
			}
		}
		storetest.Head(t, h.store)
		h.catchUp(h.index)
		compare(t, rng, h.store, h.index)
		h.steps = 0
		h.crashed()
	}
	closeBoth(t, h.store, h.index)
	t.Log(h.met)
}

func (h *history) catchUp(x *linkindex.Index) {
	h.t.Helper()
	if err := x.CatchUp(h.t.Context(), func() bool { return false }); err != nil {
		h.t.Fatal(err)
	}
}

// crashed opens what the crashes have left, and has it catch up.
func (h *history) crashed() {
	h.t.Helper()
	for _, fs := range h.clones {
		s, x := h.open(fs)
		storetest.Head(h.t, s)
		if st := x.State(); st.Through > s.Head() {
			h.t.Errorf("after a crash the index is at %d, the head is %d", st.Through, s.Head())
		}
		if n, _, err := x.Check(h.t.Context(), func(d string) { h.t.Error("after a crash:", d) }); n > 0 || err != nil {
			h.t.Errorf("after a crash: %d differences, %v", n, err)
		}
		h.catchUp(x)
		compare(h.t, h.rng, s, x)
		closeBoth(h.t, s, x)
	}
	h.clones = nil
}
