package backfill_test

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"cistern/filter"
	"cistern/ingest/simnet"
	"cistern/store"

	"golang.org/x/sync/errgroup"
)

// apply handles a commit as the live side does: a commit that follows on the stored rev is applied;
// of any other the rev is recorded, and a fetch requested.
func (w *world) apply(c simnet.Commit) error {
	defer w.Store.Lock(c.DID)()
	r, err := w.Store.RepoOrNew(c.DID)
	if err != nil || !r.Known() {
		return err
	}
	b := w.Store.NewBatch()
	switch {
	case r.State != store.StateSynced:
		r.SeenRev = max(r.SeenRev, c.Rev)
	case r.Rev >= c.Rev:
		b.Discard()
		return nil
	case r.Data != c.PrevData:
		r.SeenRev, r.Recheck = max(r.SeenRev, c.Rev), true
		b.Enqueue(&r, store.PriorityRetry)
	default:
		var ops []store.Op
		for _, op := range c.Ops {
			ops = append(ops, store.Op{Path: []byte(op.Path), CID: op.CID, Record: op.Record})
		}
		if err := b.Apply(&r, true, c.Rev, ops); err != nil {
			b.Discard()
			return err
		}
		r.Rev, r.Data = c.Rev, c.Data
		r.Commit = w.Net.Account(c.DID).Blocks()[0]
	}
	b.PutRepo(&r)
	wait, err := b.Commit()
	if err != nil {
		return err
	}
	return wait()
}

// TestRefilterLive changes the filter while commits are applied, also between two batches of one
// sweep.
func TestRefilterLive(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{net: simnet.Options{Seed: seed + 20, Hosts: 2, Repos: 5, RecordsMedian: 900, RecordsMax: 2500}})
			dids := w.Net.DIDs()
			w.Add(dids[:3]...)
			w.follow(store.BySignal, dids[3:]...)
			var g errgroup.Group
			var over atomic.Bool
			var commits atomic.Int64
			defer func() { // before the store is closed
				over.Store(true)
				_ = g.Wait()
			}()
			g.Go(func() error {
				rng := rand.New(rand.NewPCG(seed, 1))
				for !over.Load() {
					c, err := w.Net.Account(dids[rng.IntN(len(dids))]).Mutate(1 + rng.IntN(4))
					if err != nil {
						return err
					}
					if err := w.apply(c); err != nil {
						return err
					}
					w.Run.Wake()
					commits.Add(1)
				}
				return nil
			})
			rng := rand.New(rand.NewPCG(seed, 2))
			for range 20 {
				c := randomFilter(rng, dids)
				c.Signals = append(c.Signals, posts)
				w.refilter(c)
				if rng.IntN(2) == 0 {
					n := commits.Load()
					w.Until("some commits", func() bool { return commits.Load() > n+20 })
				}
			}
			w.refilter(filter.Config{Collections: []string{posts, follows}, Signals: []string{posts}})
			over.Store(true)
			if err := g.Wait(); err != nil {
				t.Fatal(err)
			}
			for _, did := range dids {
				w.ChangeIn(did, func(b *store.Batch, r *store.Repo) { // as the next commit does
					if truth := w.Net.Account(did).Truth(); r.Known() && r.Rev != truth.Rev {
						r.Recheck = true
						b.Enqueue(r, store.PriorityRetry)
						r.SeenRev = max(r.SeenRev, truth.Rev)
					} else if !r.Known() {
						r.State, r.Tracked = store.StatePending, store.BySignal
						r.Pending = store.PendingKey{Priority: store.PriorityDiscovery}
					}
				})
			}
			w.Run.Wake()
			w.Until("all to be whole", func() bool {
				w.Clock.Advance(time.Minute)
				w.Run.Wake()
				return w.Store.Counts()["synced"] == int64(len(dids))
			})
			w.converges(dids...)
			for _, did := range dids {
				if r := w.Row(did); r.Records == 0 {
					t.Errorf("%s shows nothing", did)
				}
			}
		})
	}
}
