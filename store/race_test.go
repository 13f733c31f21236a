package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
)

// TestConcurrent has many goroutines import, change, wipe and import anew, each its own
// repositories, with groups shared between them and flipped by size and by age, while others follow
// the log, query, scan, check and prune. The state that the followers derived, the store and the
// state that the writers wrote must agree.
func TestConcurrent(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	for _, small := range []int64{1 << 20, 1} {
		for _, pruning := range []bool{false, true} {
			t.Run(fmt.Sprintf("small=%d/prune=%v", small, pruning), func(t *testing.T) {
				t.Parallel()
				concurrent(t, store.Options{SmallBytes: small, GroupBytes: 20 << 10, TableBytes: 8 << 10, GroupAge: 5 * time.Millisecond, MemTableBytes: 256 << 10}, pruning)
			})
		}
	}
}

func concurrent(t *testing.T, o store.Options, pruning bool) {
	s := storetest.Open(t, o)
	rng := seeded(t)
	ctx, stop := context.WithCancel(t.Context())
	var others, writers sync.WaitGroup
	others.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	var mu sync.Mutex
	want := map[string]storetest.Records{}
	for n := range 4 {
		w := writer{t: t, s: s, rng: rand.New(rand.NewPCG(rng.Uint64(), uint64(n))), world: newWorld(), base: n << 10}
		w.world.revNo = n << 16
		writers.Go(func() {
			w.run(40)
			mu.Lock()
			defer mu.Unlock()
			for did, m := range w.world.records {
				want[did] = m
			}
		})
	}
	followers := make([]*follower, 2)
	for i := range followers {
		f := &follower{t: t, s: s, out: map[string]storetest.Records{}, lossy: pruning}
		followers[i] = f
		others.Go(func() { f.run(ctx, 1+i*30) })
	}
	others.Go(func() { ask(ctx, t, s) })
	if pruning {
		others.Go(func() {
			for ctx.Err() == nil {
				pruneDated(t, s, time.Now())
				time.Sleep(time.Millisecond)
			}
		})
	}
	writers.Wait()
	if err := s.FlushImports(); err != nil {
		t.Error(err)
	}
	stop()
	others.Wait()
	want = visible(want)
	if d := cmp.Diff(want, held(t, s)); d != "" {
		t.Errorf("store (-want +got):\n%s", d)
	}
	if pruning {
		return // a follower that fell behind the tail has holes
	}
	notEmpty(want)
	for _, f := range followers {
		f.to(s.Head(), 1000)
		if d := cmp.Diff(want, notEmpty(f.out)); d != "" {
			t.Errorf("follower (-want +got):\n%s", d)
		}
	}
}

func notEmpty(m map[string]storetest.Records) map[string]storetest.Records {
	for did, records := range m {
		if len(records) == 0 {
			delete(m, did)
		}
	}
	return m
}

// writer owns some repositories.
type writer struct {
	t     *testing.T
	s     *store.Store
	rng   *rand.Rand
	world *world
	base  int
}

func (w *writer) run(steps int) {
	for range steps {
		did := storetest.DID(w.base + w.rng.IntN(6))
		switch {
		case w.world.records[did] == nil:
			w.importAndWait(did)
		case w.rng.IntN(8) == 0:
			w.world.wipe(w.t, w.s, did)
			edit(w.t, w.s, did, func(_ *store.Batch, r *store.Repo) error { r.Status = store.StatusActive; return nil })
		default:
			w.world.change(w.t, w.s, w.rng, did, true)
		}
	}
}

// importAndWait imports, and sometimes makes the copy stale while its group is open.
func (w *writer) importAndWait(did string) {
	m := storetest.Random(w.rng, w.rng.IntN(40))
	rev := w.world.rev()
	im := m.Import(add(w.t, w.s, did), rev)
	done := make(chan error, 1)
	im.Done = func(_ store.Repo, err error) { done <- err }
	if err := w.s.Import(w.t.Context(), im); err != nil {
		w.t.Error(err)
	}
	if w.rng.IntN(4) == 0 {
		edit(w.t, w.s, did, func(_ *store.Batch, r *store.Repo) error { r.Attempt++; return nil })
	}
	switch err := <-done; {
	case err == nil:
		w.world.records[did], w.world.revs[did] = m, rev
	case !errors.Is(err, store.ErrStale):
		w.t.Error(err)
	}
}

// follower applies the log as it grows.
type follower struct {
	t      *testing.T
	s      *store.Store
	out    map[string]storetest.Records
	cursor uint64
	last   int64
	lossy  bool // the log is pruned meanwhile
}

func (f *follower) run(ctx context.Context, page int) {
	for ctx.Err() == nil {
		changed := f.s.Changed()
		if f.cursor <= f.s.Head() {
			f.to(f.s.Head(), page)
			continue
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
}

func (f *follower) to(head uint64, page int) {
	for f.cursor <= head {
		next, err := f.s.ReadLog(context.Background(), f.cursor, page, f.event)
		switch {
		case f.lossy && errors.Is(err, store.ErrOutdatedCursor):
			f.cursor = 0
			continue
		case err != nil:
			f.t.Error(err)
			f.cursor = 1 << 62
			return
		}
		f.cursor = next
	}
}

func (f *follower) event(e *store.Event) error {
	if e.ID < f.cursor || e.Time <= f.last {
		f.t.Errorf("event %d at %d, asked from %d, after %d", e.ID, e.Time, f.cursor, f.last)
	}
	f.last = e.Time
	m := f.out[e.DID]
	if m == nil {
		m = storetest.Records{}
		f.out[e.DID] = m
	}
	p := string(e.Collection) + "/" + string(e.Rkey)
	switch {
	case e.Kind == store.KindAccount && e.Status.Hidden():
		delete(f.out, e.DID)
	case e.Kind != store.KindRecord:
	case e.Action == store.Delete:
		delete(m, p)
	default:
		if repo.HashCID(e.Record) != e.CID {
			return fmt.Errorf("event %d: body is not that of its CID", e.ID)
		}
		m[p] = append([]byte{}, e.Record...)
	}
	return nil
}

// ask uses every query while others write.
func ask(ctx context.Context, t *testing.T, s *store.Store) {
	for ctx.Err() == nil {
		rows, err := s.ReposByOrdinal(0, 50)
		for _, r := range rows {
			collections, err := s.Collections(&r)
			for _, c := range collections {
				n := 0
				err := s.EachRecordOf(&r, c, "", false, func(*store.Listed) bool { n++; return n < 10 })
				if err != nil {
					t.Errorf("list %s of %s: %v", c, r.DID, err)
				}
			}
			if err != nil {
				t.Error(err)
			}
		}
		_, _, err2 := s.Repos("", 50, nil)
		err3 := s.ScanPending(ctx, 0, func(store.PendingKey, string) bool { return true })
		_, _, err4 := s.DueRetries(time.Now(), 10)
		n, err5 := s.Check(ctx, func(d string) { t.Error("check beside writers:", d) })
		for _, err := range []error{err, err2, err3, err4, err5} {
			if err != nil && ctx.Err() == nil {
				t.Errorf("%d differences: %v", n, err)
			}
		}
	}
}
