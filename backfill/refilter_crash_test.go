package backfill_test

import (
	"testing"

	"cistern/backfill"
	"cistern/backfill/backfilltest"
	"cistern/filter"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"
)

// TestRefilterCrash clones the file system at many durable steps of filter changes over
// repositories that take several batches, with none, some or all of the unsynced writes. Each clone
// must check clean, and reach the state of the filter that was in force by itself.
func TestRefilterCrash(t *testing.T) {
	storetest.WithoutRace(t) // many crash clones, one after the other
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	const seed = 9
	crashes := backfilltest.NewCrashes(seed, 12, 24)
	w := newWorld(t, worldOptions{
		net:    simnet.Options{Seed: seed, Hosts: 2, Repos: 8, OddKeys: 1, RecordsMedian: 300, RecordsMax: 1300},
		store:  store.Options{FS: crashes.FS, Step: crashes.Step},
		runner: backfill.Options{Concurrency: 2},
	})
	dids := w.Net.DIDs()
	w.Add(dids[:5]...)
	w.signal(dids[5:]...)
	for i, c := range []filter.Config{
		{Collections: []string{posts}, Signals: []string{posts}},
		{Collections: []string{likes, follows}, Signals: []string{posts}},
		{Collections: []string{likes}, Store: filter.StoreAll, Signals: []string{posts}},
		{Collections: []string{feeds}, Signals: []string{posts}, Excludes: dids[3:6]},
		{Signals: []string{"com.example.absent.thing"}},
	} {
		w.refilter(c)
		w.signal(dids[5:]...)
		if i%2 == 0 {
			w.ends(func() bool { return true })
		}
	}
	w.converges(dids...)
	w.Stop()
	eachCrash(crashes, w, 12, func(w *world) {
		w.start(backfill.Options{})
		w.converges(dids...)
	})
}
