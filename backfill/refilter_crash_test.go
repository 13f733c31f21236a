package backfill_test

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/filter"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"
)

// TestRefilterCrash clones the file system at many durable steps of filter changes over repositories that take several
// batches, with none, some or all of what was not synced. Each clone must check clean, and go on by itself to what the
// filter says that was in force.
func TestRefilterCrash(t *testing.T) {
	t.Parallel()
	const seed = 9
	fs := storetest.NewCrashFS()
	rng := rand.New(rand.NewPCG(seed, 0))
	var mu sync.Mutex // guards rng and clones
	var clones []*storetest.CrashFS
	w := newWorld(t, worldOptions{
		net: simnet.Options{Seed: seed, Hosts: 2, Repos: 8, OddKeys: 1, RecordsMedian: 300, RecordsMax: 1300},
		store: store.Options{FS: fs, Step: func(string) {
			mu.Lock()
			defer mu.Unlock()
			if rng.IntN(12) == 0 && len(clones) < 24 {
				clones = append(clones, fs.Clone(rng, []int{0, 50, 100}[rng.IntN(3)]))
			}
		}},
		runner: backfill.Options{Concurrency: 2},
	})
	dids := w.net.DIDs()
	w.add(dids[:5]...)
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
	w.stop()
	mu.Lock()
	defer mu.Unlock()
	if len(clones) < 12 {
		t.Errorf("only %d crashes", len(clones))
	}
	for _, clone := range clones {
		w.refiltered(t, clone, dids)
	}
}

// refiltered opens what a crash left and lets it run to the end.
func (w *world) refiltered(t *testing.T, fs *storetest.CrashFS, dids []string) {
	c := &world{t: t, net: w.net}
	c.clock.advance(time.Duration(w.clock.ahead.Load()))
	s, err := store.Open(store.Options{FS: fs, Dir: "db", Now: c.clock.now, GroupAge: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	c.store = s
	storetest.Check(t, s)
	c.start(backfill.Options{})
	c.converges(dids...)
	c.stop()
	storetest.Check(t, s)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
