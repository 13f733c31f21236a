package store_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"cistern/filter"
	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
)

// shelf is the expected state of one repository.
type shelf struct {
	did    string
	all    storetest.Records // as its host has it
	held   map[string]string // path → place
	filter *filter.Filter    // that chose the records
	lacks  bool
	sweep  bool
	rev    int
}

// placed returns where a filter puts a path, by a second implementation.
func placed(f *filter.Filter, path string) string {
	c := f.Config()
	collection, _, ok := strings.Cut(path, "/")
	wanted := len(c.Collections) == 0
	for _, p := range c.Collections {
		prefix, wild := strings.CutSuffix(p, "*")
		wanted = wanted || p == collection || wild && strings.HasPrefix(collection, prefix)
	}
	switch {
	case ok && wanted:
		return "shown"
	case len(c.Collections) > 0 && c.Store == filter.StoreWanted:
		return ""
	case !ok:
		return "hidden"
	}
	return "shelved"
}

// place puts a path where the filter puts it, or removes it.
func (h *shelf) place(path string) {
	if h.held[path] = placed(h.filter, path); h.held[path] == "" {
		delete(h.held, path)
	}
}

func (h *shelf) shown() storetest.Records {
	out := storetest.Records{}
	for p, place := range h.held {
		if place == "shown" {
			out[p] = h.all[p]
		}
	}
	return out
}

func (h *shelf) amend(t testing.TB, s *store.Store, ops []store.Op) {
	t.Helper()
	h.rev++
	amend(t, s, h.did, storetest.Rev(h.rev), func(r *store.Repo) { r.Sweep, r.Lacks = h.sweep, h.lacks }, ops...)
}

// commit applies a random commit of the host.
func (h *shelf) commit(t testing.TB, s *store.Store, rng *rand.Rand) {
	var ops []store.Op
	for p, m := range storetest.Random(rng, 1+rng.IntN(6)) {
		if paths := h.all.Paths(); rng.IntN(2) == 0 && len(paths) > 0 {
			p = paths[rng.IntN(len(paths))]
		}
		if slices.ContainsFunc(ops, func(op store.Op) bool { return string(op.Path) == p }) {
			continue
		}
		_, has := h.all[p]
		if rng.IntN(3) == 0 {
			ops = append(ops, drop(p))
			delete(h.all, p)
			delete(h.held, p)
			continue
		}
		if rng.IntN(8) == 0 && has {
			m = h.all[p]
		}
		ops = append(ops, store.Op{Path: []byte(p), CID: repo.HashCID(m), Record: m, New: !has && rng.IntN(2) == 0})
		h.all[p] = m
		h.place(p)
	}
	h.amend(t, s, ops)
}

// refilter puts the repository under another version of the filter.
func (h *shelf) refilter(t testing.TB, s *store.Store, version uint32) {
	t.Helper()
	f, err := s.FilterAt(version)
	if err != nil {
		t.Fatal(err)
	}
	h.sweep = true
	h.lacks = h.lacks || !h.filter.StoresAll() && (!h.filter.Covers(f) || f.StoresAll() && !h.filter.WantsAll())
	h.filter = f
	h.rev++
	amend(t, s, h.did, storetest.Rev(h.rev), func(r *store.Repo) { r.Filter, r.Sweep, r.Lacks = version, h.sweep, h.lacks })
}

// sweepSome sweeps some of the records, or all.
func (h *shelf) sweepSome(t testing.TB, s *store.Store, rng *rand.Rand) {
	paths := slices.Sorted(maps.Keys(h.held))
	rng.Shuffle(len(paths), func(i, j int) { paths[i], paths[j] = paths[j], paths[i] })
	if rng.IntN(3) > 0 {
		paths = paths[:rng.IntN(len(paths)+1)]
	} else {
		h.sweep = false
	}
	var ops []store.Op
	for _, p := range paths {
		ops = append(ops, keep(p))
		h.place(p)
	}
	h.amend(t, s, ops)
}

// fetch applies a copy of all that is wanted.
func (h *shelf) fetch(t testing.TB, s *store.Store) {
	var ops []store.Op
	for p, m := range h.all {
		ops = append(ops, store.Op{Path: []byte(p), CID: repo.HashCID(m), Record: m})
		h.place(p)
	}
	for p := range h.held {
		h.place(p)
	}
	h.lacks, h.sweep = false, false
	slices.SortFunc(ops, func(a, b store.Op) int { return strings.Compare(string(a.Path), string(b.Path)) })
	defer s.Lock(h.did)()
	r, err := s.Repo(h.did)
	if err != nil {
		t.Fatal(err)
	}
	r.Sweep = true
	b := s.NewBatch()
	if err := b.Apply(&r, false, r.Rev, ops); err != nil {
		t.Fatal(err)
	}
	r.Sweep, r.Lacks = false, false
	b.ForgeRepo(&r)
	if err := b.CommitSync(); err != nil {
		t.Fatal(err)
	}
}

// again wipes the repository and imports it by a version.
func (h *shelf) again(t testing.TB, s *store.Store, version uint32) {
	t.Helper()
	if r, err := s.RepoOrNew(h.did); err != nil {
		t.Fatal(err)
	} else if r.Ordinal != 0 {
		(&world{}).wipe(t, s, h.did)
		setStatus(t, s, h.did, store.StatusActive)
	}
	f, err := s.FilterAt(version)
	if err != nil {
		t.Fatal(err)
	}
	h.rev++
	importBy(t, s, h.did, h.all, version, storetest.Rev(h.rev))
	h.filter, h.held, h.lacks, h.sweep = f, map[string]string{}, false, false
	for p := range h.all {
		h.place(p)
	}
}

// equal compares the stored rows with the expected ones.
func (h *shelf) equal(t testing.TB, s *store.Store) {
	t.Helper()
	if d := cmp.Diff(h.held, rowsOf(t, s, h.did)); d != "" {
		t.Errorf("rows of %s by %+v (-want +got):\n%s", h.did, h.filter.Config(), d)
	}
	for p := range h.all {
		if want := placed(h.filter, p); !h.sweep && !h.lacks && h.held[p] != want {
			t.Errorf("%s of %s is %q, %+v wants it %q", p, h.did, h.held[p], h.filter.Config(), want)
		}
	}
}

func randomFilter(rng *rand.Rand) filter.Config {
	c := filter.Config{Store: []string{filter.StoreWanted, filter.StoreAll}[rng.IntN(2)]}
	for range rng.IntN(4) {
		c.Collections = append(c.Collections, []string{"app.test.c0", "app.test.c1", "app.test.c2", "app.test.*", "app.test.none", "com.*"}[rng.IntN(6)])
	}
	return c
}

// TestShelveModel drives random commits, changes of the filter, sweeps in parts, fetches,
// reactivations and imports, and compares rows, lists and the log with plain maps.
func TestShelveModel(t *testing.T) {
	t.Parallel()
	for i := range 4 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			rng := seeded(t)
			o := store.Options{FS: vfs.NewMem(), Dir: "db", SmallBytes: int64(1 + i%2<<20)}
			s, err := store.Open(o)
			if err != nil {
				t.Fatal(err)
			}
			var shelves []*shelf
			for n := range 3 {
				h := &shelf{did: storetest.DID(n + 1), all: storetest.Random(rng, rng.IntN(60))}
				h.again(t, s, 0)
				shelves = append(shelves, h)
			}
			for step := range 150 {
				h := shelves[rng.IntN(len(shelves))]
				switch n := rng.IntN(20); {
				case n < 8:
					h.commit(t, s, rng)
				case n < 11:
					setFilter(t, s, randomFilter(rng))
				case n < 14:
					h.refilter(t, s, s.Selections()[rng.IntN(len(s.Selections()))])
				case n < 17:
					h.sweepSome(t, s, rng)
				case n < 18:
					h.fetch(t, s)
				case n < 19:
					setStatus(t, s, h.did, store.StatusDeactivated)
					setStatus(t, s, h.did, store.StatusActive)
				default:
					h.again(t, s, s.Filter().Selection)
				}
				h.equal(t, s)
				if step%25 != 24 {
					continue
				}
				storetest.Check(t, s)
				want := map[string]storetest.Records{}
				for _, h := range shelves {
					h.equal(t, s)
					want[h.did] = h.shown()
				}
				if d := cmp.Diff(want, held(t, s)); d != "" {
					t.Errorf("shown (-want +got):\n%s", d)
				}
				folded := fold(t, s, 1+rng.IntN(9))
				for did := range want {
					if d := cmp.Diff(want[did], folded[did]); d != "" && len(want[did])+len(folded[did]) > 0 {
						t.Errorf("log of %s folded (-want +got):\n%s", did, d)
					}
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				if s, err = store.Open(o); err != nil {
					t.Fatal(err)
				}
				if t.Failed() {
					return
				}
			}
			prune(t, s, time.Now().Add(time.Hour))
			storetest.Check(t, s)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
