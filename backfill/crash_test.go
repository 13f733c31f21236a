package backfill_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/ingest/repo"
	"cistern/ingest/simnet"
	"cistern/store"
)

// TestCrash clones the file system at many durable steps of first copies, failures and resyncs,
// with none, some or all of the unsynced writes. Each clone must check clean, continue by itself,
// and end in the true state, with each change in the log exactly once.
func TestCrash(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	const seed = 5
	crashes := newCrashes(seed, 4, 40)
	w := newWorld(t, worldOptions{
		net:    simnet.Options{Seed: seed, Clutter: true, Hosts: 2, Repos: 8, OddKeys: 1, RecordsMax: 200},
		store:  store.Options{FS: crashes.fs, Step: crashes.step, SmallBytes: 64 << 20},
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
	w.rewrite(w.net.Account(dids[2]), rand.New(rand.NewPCG(seed, 1)), 0)
	w.clock.advance(time.Hour)
	w.add(dids[1:]...)
	w.settle(dids...)
	w.stop()
	crashes.each(w, 10, func(w *world) {
		w.start(backfill.Options{})
		w.add(dids...)
		w.settle(dids...)
		w.clock.advance(2 * time.Hour)
		w.run.Wake()
		w.until("all to be synced", func() bool { return w.store.Counts()["synced"] == int64(len(dids)) })
		for _, did := range dids {
			w.equal(did)
			w.tells(did)
		}
	})
}

// tells checks that the log of a DID leads to the true state, and that each event changes
// something.
func (w *world) tells(did string) {
	w.t.Helper()
	held, rev := map[string]repo.CID{}, ""
	for cursor := w.store.Tail(); cursor <= w.store.Head(); {
		next, err := w.store.ReadLog(w.t.Context(), cursor, 10_000, func(e *store.Event) error {
			if e.DID == did && e.Kind == store.KindAccount && e.Status.Hidden() {
				// A reader may drop the records before they are listed anew.
				held, rev = map[string]repo.CID{}, ""
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
