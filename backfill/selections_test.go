package backfill_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"cistern/backfill"
	"cistern/backfill/backfilltest"
	"cistern/filter"
	"cistern/ingest/simnet"
	"cistern/store"
)

// selectionsNamed checks that the stored filters are the filters that rows name, the zero filter
// and the filter in force. Rows may name only the newest 64.
func (w *world) selectionsNamed() {
	w.T.Helper()
	named := map[uint32]bool{0: true, w.Store.Filter().Selection: true}
	rows, _, err := w.Store.Repos("", 1<<20, nil)
	if err != nil {
		w.T.Fatal(err)
	}
	for _, row := range rows {
		named[row.Filter] = true
	}
	kept := w.Store.Selections()
	unnamed := func(n uint32) bool { return !named[n] }
	if len(kept) != len(named) || slices.ContainsFunc(kept, unnamed) || len(kept) > 65 {
		w.T.Errorf("filters %v are kept, rows name %v", kept, named)
	}
}

// filters puts n filters in force, one after the other.
func (w *world) filters(n int, nth func(i int) filter.Config) {
	w.T.Helper()
	for i := range n {
		if _, err := w.Store.SetFilter(nth(i)); err != nil {
			w.T.Fatal(err)
		}
	}
}

// TestSelectionsDropped: when a pass is over, earlier filters that no repository names are deleted.
// A repository that needs no change names an early filter until 64 later ones exist, also if it is
// no longer tracked.
func TestSelectionsDropped(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 5, RecordsMedian: 5}})
	dids := w.Net.DIDs()
	config := func(i int) filter.Config {
		signal := fmt.Sprintf("com.example.absent.s%d", i)
		return filter.Config{Collections: []string{posts}, Signals: []string{signal}}
	}
	w.refilter(config(0))
	w.Add(dids...)
	w.ends(func() bool { return true })
	first := w.Store.Filter().Selection
	w.Untrack(dids[0])
	excluding := config(0)
	excluding.Excludes = []string{"did:web:none.test"}
	w.refilter(excluding)
	w.ends(func() bool { return true })
	if got := w.Store.Selections(); !slices.Equal(got, []uint32{0, first}) {
		t.Errorf("after a change of the excludes: %v", got)
	}
	w.Stop() // no pass deletes filters meanwhile
	w.filters(63, func(i int) filter.Config { return config(i + 1) })
	w.start(backfill.Options{})
	w.ends(func() bool { return true })
	w.selectionsNamed()
	for _, did := range dids {
		if got := w.Row(did).Filter; got != first {
			t.Errorf("%s names filter %d, and %d was all the same to it", did, got, first)
		}
	}
	w.Stop()
	w.filters(64, func(i int) filter.Config { return config(i + 100) })
	w.start(backfill.Options{})
	w.ends(func() bool { return true })
	w.selectionsNamed()
	for _, did := range dids {
		if got := w.Row(did).Filter; got == first {
			t.Errorf("%s still names filter %d", did, got)
		}
	}
	w.refilter(filter.Config{Collections: []string{likes}})
	w.converges(dids[1:]...)
	w.selectionsNamed()
	// The untracked repository holds the selection of an earlier filter, and is adapted to the
	// filter in force when it is tracked again.
	w.Add(dids[0])
	w.converges(dids...)
	w.refilter(filter.Config{})
	w.converges(dids...)
	w.selectionsNamed()
	if got := w.Store.Selections(); len(got) != 2 {
		t.Errorf("%v are kept", got)
	}
}

// TestSelectionsDroppedCrash clones the file system at steps of changes that are followed by
// passes, in which earlier filters are deleted. Each clone checks clean, so that no repository
// names a deleted one, and its own pass deletes what is left.
func TestSelectionsDroppedCrash(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	const seed = 5
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	crashes := backfilltest.NewCrashes(seed, 6, 30)
	w := newWorld(t, worldOptions{
		net:    simnet.Options{Seed: seed, Hosts: 2, Repos: 6, RecordsMedian: 8},
		store:  store.Options{FS: crashes.FS, Step: crashes.Step},
		runner: backfill.Options{Concurrency: 2},
	})
	dids := w.Net.DIDs()
	w.Add(dids...)
	w.ends(func() bool { return true })
	for range 12 {
		for range 1 + rng.IntN(3) {
			w.refilter(randomFilter(rng, dids[:1]))
		}
		if rng.IntN(3) == 0 {
			w.mutate(rng, dids[1:])
		}
		if rng.IntN(3) > 0 {
			w.ends(func() bool { return true })
			w.selectionsNamed()
		}
	}
	w.Stop()
	eachCrash(crashes, w, 12, func(w *world) {
		w.start(backfill.Options{})
		w.ends(func() bool { return true })
		w.refilter(filter.Config{Collections: []string{posts, follows}})
		w.ends(func() bool { return true })
		w.selectionsNamed()
	})
}
