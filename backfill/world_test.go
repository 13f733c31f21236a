package backfill_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/filter"
	"cistern/gate"
	"cistern/ingest/identity"
	"cistern/ingest/repo"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"

	"golang.org/x/sync/errgroup"
)

// clock runs as fast as the real one, and can be set forward.
type clock struct {
	ahead atomic.Int64
}

func (c *clock) now() time.Time {
	return time.Now().Add(time.Duration(c.ahead.Load()))
}

func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// world is a simulated network, a store and a runner between them.
type world struct {
	t     testing.TB
	clock clock
	net   *simnet.Network
	store *store.Store
	dir   *identity.Directory
	run   *backfill.Runner
	gate  *gate.Gate
	stop  func() // stops the runner and the store's loops
	end   func() // makes the runner begin to stop
}

type worldOptions struct {
	net    simnet.Options
	store  store.Options
	runner backfill.Options
}

func newWorld(t testing.TB, o worldOptions) *world {
	t.Helper()
	w := &world{t: t}
	o.net.Seed = max(o.net.Seed, 1)
	t.Logf("seed %d", o.net.Seed)
	var err error
	if w.net, err = simnet.New(o.net); err != nil {
		t.Fatal(err)
	}
	if err := w.net.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.net.Close() })
	o.store.Now = w.clock.now
	o.store.GroupAge = 5 * time.Millisecond
	w.store = storetest.Open(t, o.store)
	w.start(o.runner)
	t.Cleanup(func() { w.stop() })
	return w
}

// pausing is the reason with which tests shut gates.
var pausing = gate.Cause{Name: "test"}

// start creates a runner over the world's store and runs it.
func (w *world) start(o backfill.Options) {
	w.t.Helper()
	var err error
	w.dir, err = identity.New(identity.Options{PLC: []string{w.net.PLC()}, AllowPrivate: true, Now: w.clock.now})
	if err != nil {
		w.t.Fatal(err)
	}
	o.Store, o.AllowPrivate, o.Now, o.SpoolDir = w.store, true, w.clock.now, w.t.TempDir()
	if o.Directory == nil {
		o.Directory = w.dir
	}
	w.gate = new(gate.Gate)
	o.Gate = w.gate
	if os.Getenv("CISTERNTEST_LOG") != "" {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if w.run, err = backfill.New(o); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.end = cancel
	var g errgroup.Group
	storeCtx, cancelStore := context.WithCancel(context.Background())
	g.Go(func() error { return w.run.Run(ctx) })
	var sg errgroup.Group
	sg.Go(func() error { return w.store.Run(storeCtx) })
	w.stop = func() {
		cancel()
		if err := g.Wait(); err != nil {
			w.t.Errorf("runner: %v", err)
		}
		cancelStore()
		if err := sg.Wait(); err != nil {
			w.t.Errorf("store: %v", err)
		}
		if free, running := backfill.Permits(w.run); running != 0 {
			w.t.Errorf("after the end %d permits are free, %d taken", free, running)
		}
		if bodies, spools := backfill.Memory(w.run); bodies != 0 || spools != 0 {
			w.t.Errorf("after the end bodies hold %d bytes, spools %d", bodies, spools)
		}
		w.stop = func() {}
	}
}

// add requests repositories by name.
func (w *world) add(dids ...string) {
	w.t.Helper()
	for _, did := range dids {
		w.changeIn(did, func(b *store.Batch, r *store.Repo) {
			if r.Tracked == store.Untracked {
				b.Track(r, store.ByOperator, store.PriorityOperator)
				return
			}
			r.Tracked = store.ByOperator
			b.Enqueue(r, store.PriorityOperator)
			r.Pending.Priority = store.PriorityOperator
		})
	}
	w.run.Wake()
}

func (w *world) change(did string, f func(r *store.Repo)) {
	w.t.Helper()
	w.changeIn(did, func(_ *store.Batch, r *store.Repo) { f(r) })
}

func (w *world) changeIn(did string, f func(b *store.Batch, r *store.Repo)) {
	w.t.Helper()
	wait, err := w.store.UpdateRepo(did, func(b *store.Batch, r *store.Repo) error {
		f(b, r)
		b.PutRepo(r)
		return nil
	})
	if err == nil {
		err = wait()
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// know stores an account that is not followed.
func (w *world) know(did string) {
	w.t.Helper()
	w.changeIn(did, func(b *store.Batch, r *store.Repo) {
		b.Track(r, store.ByOperator, 0)
		b.Untrack(r)
	})
}

func (w *world) untrack(did string) {
	w.t.Helper()
	w.changeIn(did, func(b *store.Batch, r *store.Repo) { b.Untrack(r) })
}

func (w *world) row(did string) store.Repo {
	w.t.Helper()
	r, err := w.store.Repo(did)
	if err != nil {
		w.t.Fatalf("row of %s: %v", did, err)
	}
	return r
}

// until waits for a condition.
func (w *world) until(what string, cond func() bool) {
	w.t.Helper()
	w.untilFor(20*time.Second, what, cond)
}

// untilFor is until with another patience: it ends when the store has not changed for so long.
func (w *world) untilFor(patience time.Duration, what string, cond func() bool) {
	w.t.Helper()
	state, deadline := "", time.Time{}
	for !cond() {
		now := time.Now()
		if s := fmt.Sprint(w.store.Counts(), w.store.Head()); s != state {
			state, deadline = s, now.Add(patience)
		}
		if now.After(deadline) {
			w.t.Fatalf("still waiting for: %s; counts %v", what, w.store.Counts())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// looked makes the runner begin all work that it would begin by itself now, and waits until that
// work has ended.
func (w *world) looked() {
	w.t.Helper()
	for range 2 { // the end of a task may start another
		if err := backfill.Look(w.t.Context(), w.run); err != nil {
			w.t.Fatal(err)
		}
		w.until("no task to run", func() bool { return w.run.Syncing() == 0 })
	}
}

// settle waits until a repository has left the queue and its task has ended.
func (w *world) settle(dids ...string) {
	w.t.Helper()
	for _, did := range dids {
		w.until(fmt.Sprintf("%s to leave the queue", did), func() bool {
			return w.row(did).State != store.StatePending && !w.run.InFlight(did)
		})
	}
}

// equal checks that the stored state of an account is the true one.
func (w *world) equal(did string) {
	w.t.Helper()
	r, truth := w.row(did), w.net.Account(did).Truth()
	if r.State != store.StateSynced || r.Status != store.StatusActive {
		w.t.Errorf("%s is %v, %v (%+v), not synced", did, r.State, r.Status, r.Retry)
	}
	if r.Rev != truth.Rev || r.Data != truth.Data || repo.HashCID(r.Commit) != truth.Commit || r.PDS != truth.Host || r.Key != truth.Key {
		w.t.Errorf("%s: row %+v, truth %+v", did, r, truth)
	}
	if r.Retry != (store.Retry{}) || r.Missing != 0 {
		w.t.Errorf("%s is synced and remembers %+v, missing %d", did, r.Retry, r.Missing)
	}
	if got := w.records(did); !equalRecords(got, truth.Records) {
		w.t.Errorf("%s holds %d records, truth %d", did, len(got), len(truth.Records))
	}
	if r.Records != int64(len(truth.Records)) {
		w.t.Errorf("%s counts %d records, truth %d", did, r.Records, len(truth.Records))
	}
}

func (w *world) records(did string) map[string]repo.CID {
	w.t.Helper()
	m := map[string]repo.CID{}
	r := w.row(did)
	if r.Ordinal == 0 {
		return m
	}
	rows, err := w.store.Rows(r.Ordinal)
	if err != nil {
		w.t.Fatal(err)
	}
	for rows.Next() {
		m[string(rows.Row().Path)] = rows.Row().CID
	}
	if err := rows.Close(); err != nil {
		w.t.Fatal(err)
	}
	return m
}

func equalRecords(a, b map[string]repo.CID) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return true
}

// events returns the log of a DID from an id on, as short texts.
func (w *world) events(did string, from uint64) []string {
	w.t.Helper()
	var out []string
	for cursor := from; cursor <= w.store.Head(); {
		next, err := w.store.ReadLog(w.t.Context(), cursor, 10_000, func(e *store.Event) error {
			if e.DID != did {
				return nil
			}
			switch e.Kind {
			case store.KindRecord:
				out = append(out, fmt.Sprintf("%d %s/%s", e.Action, e.Collection, e.Rkey))
			case store.KindAccount:
				out = append(out, "account "+e.Status.String())
			case store.KindIdentity:
				out = append(out, "identity "+e.PDS)
			}
			return nil
		})
		if err != nil {
			w.t.Fatal(err)
		}
		if next == cursor {
			break
		}
		cursor = next
	}
	return out
}

// filter puts a filter in force.
func (w *world) filter(c filter.Config) {
	w.t.Helper()
	if _, err := w.store.SetFilter(c); err != nil {
		w.t.Fatal(err)
	}
	w.run.Wake()
}

// gauges checks that the counters agree with the rows.
func (w *world) gauges() {
	w.t.Helper()
	storetest.Check(w.t, w.store)
}
