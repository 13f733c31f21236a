package store_test

import (
	"slices"
	"strings"
	"testing"

	"cistern/filter"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
)

// sweepAll brings a repository to a version in parts, as a pass does, and drops it when drops is
// set. It continues wherever a crash left it.
func sweepAll(t testing.TB, s *store.Store, did string, version uint32, drops bool) {
	t.Helper()
	r, err := s.RepoOrNew(did)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Known() || r.Filter == version && !r.Sweep && !drops {
		return
	}
	rows, err := s.Rows(r.Ordinal)
	if err != nil {
		t.Fatal(err)
	}
	var ops []store.Op
	for rows.Next() {
		if row := rows.Row(); drops {
			ops = append(ops, drop(string(row.Path)))
		} else {
			ops = append(ops, keep(string(row.Path)))
		}
	}
	if err := rows.Close(); err != nil {
		t.Fatal(err)
	}
	for part := range slices.Chunk(ops, 7) {
		edit(t, s, did, func(b *store.Batch, r *store.Repo) error {
			r.Filter, r.Sweep = version, true
			return b.Apply(r, false, r.Rev, part)
		})
	}
	if drops {
		dropRepo(t, s, did, nil, true)
		return
	}
	edit(t, s, did, func(_ *store.Batch, r *store.Repo) error { r.Filter, r.Sweep = version, false; return nil })
}

// TestSweepCrash clones the file system at each step of sweeps and drops: the clone must check
// clean, hold every published event, and come to the same end.
func TestSweepCrash(t *testing.T) {
	storetest.WithoutRace(t)
	t.Parallel()
	rng := seeded(t)
	contents := storetest.Random(rng, 24)
	filters := []filter.Config{only("app.test.c0", filter.StoreAll), only("app.test.c1", filter.StoreAll), only("app.test.c1", ""), only("app.none.*", "")}
	// play brings the store from any position to the end, and returns the records held after each
	// filter it set.
	play := func(s *store.Store) (held []map[string]string) {
		if r, err := s.RepoOrNew(storetest.DID(1)); err != nil {
			t.Fatal(err)
		} else if r.Ordinal == 0 && s.Head() == 0 {
			importBy(t, s, storetest.DID(1), contents, 0, storetest.Rev(1))
		}
		for i := max(1, int(s.Filter().Version)); i <= len(filters); i++ {
			version := setFilter(t, s, filters[i-1])
			if _, err := s.Repo(storetest.DID(1)); err == nil {
				sweepAll(t, s, storetest.DID(1), version, false)
				held = append(held, rowsOf(t, s, storetest.DID(1)))
			}
		}
		sweepAll(t, s, storetest.DID(1), s.Filter().Selection, true)
		return held
	}
	fs := storetest.NewCrashFS()
	type crash struct {
		fs        *storetest.CrashFS
		published map[uint64]string
	}
	var crashes []crash
	var s *store.Store
	o := store.Options{Dir: "db", FS: fs, Step: func(string) {
		if s != nil {
			crashes = append(crashes, crash{fs.Clone(rng, []int{0, 50, 100}[rng.IntN(3)]), told(t, s)})
		}
	}}
	var err error
	if s, err = store.Open(o); err != nil {
		t.Fatal(err)
	}
	want := play(s)
	storetest.Check(t, s)
	plain := s
	s = nil
	if err := plain.Close(); err != nil {
		t.Error(err)
	}
	if len(want) != len(filters) || len(crashes) < 20 {
		t.Fatalf("%d filters, %d crashes", len(want), len(crashes))
	}
	for i, c := range crashes {
		again, err := store.Open(store.Options{Dir: "db", FS: c.fs})
		if err != nil {
			t.Fatal(err)
		}
		storetest.Check(t, again)
		now := told(t, again)
		for id, e := range c.published {
			// A drop that was not published yet may have survived.
			if got, ok := now[id]; got != e && (ok || again.Head() == maxID(c.published)) {
				t.Errorf("crash %d: event %d was %s and is %s", i, id, e, got)
			}
		}
		held := play(again)
		if d := cmp.Diff(want[len(want)-len(held):], held); d != "" && len(held) > 0 {
			t.Errorf("crash %d: (-want +got):\n%s", i, d)
		}
		storetest.Check(t, again)
		if n := again.Counts(); n["repos"] != 0 || n["records"] != 0 || n["blocks"] != 0 {
			t.Errorf("crash %d: left %v", i, n)
		}
		for _, e := range spoken(t, again, 1) {
			if !strings.HasPrefix(e, "delete ") {
				t.Errorf("crash %d: after the drop, the log tells of %s", i, e)
			}
		}
		if err := again.Close(); err != nil {
			t.Error(err)
		}
	}
}
