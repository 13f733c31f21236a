package backfill_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/backfill/backfilltest"
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
	crashes := backfilltest.NewCrashes(seed, 4, 40)
	w := newWorld(t, worldOptions{
		net:    simnet.Options{Seed: seed, Clutter: true, Hosts: 2, Repos: 8, OddKeys: 1, RecordsMax: 200},
		store:  store.Options{FS: crashes.FS, Step: crashes.Step, SmallBytes: 64 << 20},
		runner: backfill.Options{Concurrency: 2},
	})
	dids := w.Net.DIDs()
	w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.BadSignature, DID: dids[0], Count: 1})
	w.Add(dids...)
	w.Settle(dids...)
	for _, did := range dids[1:] {
		if _, err := w.Net.Account(did).Mutate(30); err != nil {
			t.Fatal(err)
		}
	}
	w.rewrite(w.Net.Account(dids[2]), rand.New(rand.NewPCG(seed, 1)), 0)
	w.Clock.Advance(time.Hour)
	w.Add(dids[1:]...)
	w.Settle(dids...)
	w.Stop()
	eachCrash(crashes, w, 10, func(w *world) {
		w.start(backfill.Options{})
		w.Add(dids...)
		w.Settle(dids...)
		w.Clock.Advance(2 * time.Hour)
		w.Run.Wake()
		w.Until("all to be synced", func() bool { return w.Store.Counts()["synced"] == int64(len(dids)) })
		for _, did := range dids {
			w.Equal(did)
			w.tells(did)
		}
	})
}

// tells checks that the log of a DID leads to the true state, and that each event changes
// something.
func (w *world) tells(did string) {
	w.T.Helper()
	w.Publish(did)
	held, rev := map[string]repo.CID{}, ""
	for cursor := w.Store.Tail(); cursor <= w.Store.Head(); {
		next, err := w.Store.ReadLog(w.T.Context(), cursor, 10_000, func(e *store.Event) error {
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
			w.T.Errorf("%s: %v", did, err)
			return
		}
		cursor = next
	}
	truth := map[string]repo.CID{}
	for path, c := range w.Net.Account(did).Truth().Records {
		if repo.ValidPath([]byte(path)) {
			truth[path] = c
		}
	}
	if !maps.Equal(held, truth) {
		w.T.Errorf("%s: the log leads to %d records, truth has %d", did, len(held), len(truth))
	}
}
