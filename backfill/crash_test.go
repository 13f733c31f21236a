package backfill_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/ingest/repo"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestCrash clones the file system at many durable steps of first copies, failures and resyncs, with
// none, some or all of what was not synced. Each clone must check clean, go on by itself, and end
// with what is true, every change told exactly once.
func TestCrash(t *testing.T) {
	t.Parallel()
	const seed = 5
	fs := vfs.NewCrashableMem()
	rng := rand.New(rand.NewPCG(seed, 0))
	var mu sync.Mutex // guards rng and clones
	var clones []*vfs.MemFS
	step := func(string) {
		mu.Lock()
		defer mu.Unlock()
		if rng.IntN(4) == 0 && len(clones) < 40 {
			percent := []int{0, 50, 100}[rng.IntN(3)]
			clones = append(clones, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng}))
		}
	}
	w := newWorld(t, worldOptions{
		net:    simnet.Options{Seed: seed, Hosts: 2, Repos: 8, OddKeys: 1, RecordsMax: 200},
		store:  store.Options{FS: fs, Step: step, SmallBytes: 64 << 20}, // no ingests: cloning deadlocks with a link
		runner: backfill.Options{Concurrency: 2},
	})
	dids := w.net.DIDs()
	w.net.Host(0).Inject(simnet.Fault{Kind: simnet.BadSignature, DID: dids[0], Count: 1})
	w.add(dids...)
	w.settle(dids...)
	for _, did := range dids[1:] {
		if _, err := w.net.Account(did).Mutate(30); err != nil {
			t.Fatal(err)
		}
	}
	w.rewrite(w.net.Account(dids[2]), rng, 0)
	w.clock.advance(time.Hour)
	w.add(dids[1:]...)
	w.settle(dids...)
	w.stop()
	mu.Lock()
	defer mu.Unlock()
	if len(clones) < 10 {
		t.Errorf("only %d crashes", len(clones))
	}
	for _, clone := range clones {
		w.recovers(t, clone, dids)
	}
}

// recovers opens what a crash left and lets it run to the end.
func (w *world) recovers(t *testing.T, fs *vfs.MemFS, dids []string) {
	c := &world{t: t, net: w.net}
	c.clock.advance(time.Duration(w.clock.ahead.Load()))
	s, err := store.Open(store.Options{FS: fs, Dir: "db", Now: c.clock.now, GroupAge: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	c.store = s
	storetest.Check(t, s)
	c.start(backfill.Options{})
	c.add(dids...)
	c.settle(dids...)
	c.clock.advance(2 * time.Hour)
	c.run.Wake()
	c.until("all to be synced", func() bool { return s.Counts()["synced"] == int64(len(dids)) })
	for _, did := range dids {
		c.equal(did)
		c.tells(did)
	}
	c.stop()
	storetest.Check(t, s)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// tells checks that the log of a DID leads to what is true, and no event says what was so already.
func (w *world) tells(did string) {
	w.t.Helper()
	held, rev := map[string]repo.CID{}, ""
	for cursor := w.store.Tail(); cursor <= w.store.Head(); {
		next, err := w.store.ReadLog(w.t.Context(), cursor, 10_000, func(e *store.Event) error {
			if e.DID == did && e.Kind == store.KindAccount && e.Status.Hidden() {
				held, rev = map[string]repo.CID{}, "" // a reader may drop what is listed anew
			}
			if e.DID != did || e.Kind != store.KindRecord {
				return nil
			}
			path := fmt.Sprintf("%s/%s", e.Collection, e.Rkey)
			old, known := held[path]
			switch {
			case e.Rev < rev:
				return fmt.Errorf("rev %s after %s", e.Rev, rev)
			case e.Action == store.Create && known, e.Action != store.Create && !known, old == e.CID:
				return fmt.Errorf("action %d on %s, known %v, twice %v", e.Action, path, known, old == e.CID)
			}
			rev, held[path] = e.Rev, e.CID
			if e.Action == store.Delete {
				delete(held, path)
			}
			return nil
		})
		if err != nil {
			w.t.Errorf("%s: %v", did, err)
			return
		}
		cursor = next
	}
	truth := map[string]repo.CID{}
	for path, c := range w.net.Account(did).Truth().Records {
		if repo.ValidPath([]byte(path)) {
			truth[path] = c
		}
	}
	if !equalRecords(held, truth) {
		w.t.Errorf("%s: the log leads to %d records, truth has %d", did, len(held), len(truth))
	}
}
