package discover_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/backfill/discover"
	"cistern/gate"
	"cistern/ingest/identity"
	"cistern/ingest/repo"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/prometheus/client_golang/prometheus"
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
	t         testing.TB
	clock     clock
	net       *simnet.Network
	store     *store.Store
	dir       *identity.Directory
	run       *backfill.Runner
	crawl     *discover.Runner
	gate      *gate.Gate
	crawlGate *gate.Gate
	follows   func(source uint32) bool // of backfill.Options
	stop      func()                   // stops the runner and the store's loops
}

type worldOptions struct {
	net   simnet.Options
	store store.Options
	crawl discover.Options
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
	w.start(o.crawl)
	t.Cleanup(func() { w.stop() })
	return w
}

// pausing is the reason with which tests shut gates.
var pausing = gate.Cause{Name: "test"}

// start creates a runner and discovery over the world's store, and runs both.
func (w *world) start(o discover.Options) {
	w.t.Helper()
	var err error
	w.dir, err = identity.New(identity.Options{PLC: []string{w.net.PLC()}, AllowPrivate: true, Now: w.clock.now})
	if err != nil {
		w.t.Fatal(err)
	}
	if os.Getenv("CISTERNTEST_LOG") != "" {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	w.gate, w.crawlGate = new(gate.Gate), new(gate.Gate)
	w.run, err = backfill.New(backfill.Options{Store: w.store, Directory: w.dir, AllowPrivate: true, SpoolDir: w.t.TempDir(),
		Gate: w.gate, Follows: w.follows, IdleTimeout: o.IdleTimeout, Now: w.clock.now, Logger: o.Logger, Registerer: o.Registerer})
	if err != nil {
		w.t.Fatal(err)
	}
	o.Store, o.Hosts, o.Directory, o.Enqueued = w.store, w.run.Hosts(), w.dir, w.run.Enqueued
	o.AllowPrivate, o.Gate, o.Now = true, w.crawlGate, w.clock.now
	if w.crawl, err = discover.New(o); err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var g errgroup.Group
	storeCtx, cancelStore := context.WithCancel(context.Background())
	g.Go(func() error { return w.run.Run(ctx) })
	g.Go(func() error { return w.crawl.Run(ctx) })
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
		if taken := w.permits(); taken != 0 {
			w.t.Errorf("after the end %d permits are taken", taken)
		}
		w.stop = func() {}
	}
}

// permits returns how many permits of hosts are taken.
func (w *world) permits() (taken int) {
	all, _, err := w.store.Hosts("", 1<<20, func(h *store.Host) bool { return h.ID != 0 })
	if err != nil {
		w.t.Fatal(err)
	}
	for _, h := range all {
		taken += w.run.Hosts().Standing(h.ID).Running
	}
	return taken
}

// wake makes all loops look for work, as the daemon does.
func (w *world) wake() {
	w.run.Wake()
	w.crawl.Wake()
}

// hostChanged applies changed settings of a host, as the daemon does.
func (w *world) hostChanged(id uint32) {
	w.run.HostChanged(id)
	w.crawl.HostChanged(id)
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
	w.wake()
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

// lists makes every crawl source read the lists that are due, except for so many that a test holds
// up.
func (w *world) lists(held int) {
	w.t.Helper()
	if err := discover.LookAtLists(w.t.Context(), w.crawl, held); err != nil {
		w.t.Fatal(err)
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

// gauges checks that the counters agree with the rows.
func (w *world) gauges() {
	w.t.Helper()
	storetest.Check(w.t, w.store)
}

// accounts returns the account events of a DID.
func (w *world) accounts(did string, from uint64) []string {
	return slices.DeleteFunc(w.events(did, from), func(e string) bool { return e[0] != 'a' })
}

// known reports whether the store has a row of a repository.
func (w *world) known(did string) bool {
	_, err := w.store.Repo(did)
	return !errors.Is(err, store.ErrNotFound)
}

// counted returns the sum of a counter, or of its series with a label value.
func counted(t testing.TB, reg *prometheus.Registry, name, value string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "cistern_backfill_"+name && (value == "" || m.GetLabel()[0].GetValue() == value) {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// directory is a directory in memory.
type directory map[string]identity.Identity

// Resolve returns the identity of a DID in memory.
func (d directory) Resolve(_ context.Context, did string) (identity.Identity, error) {
	if ident, ok := d[did]; ok {
		return ident, nil
	}
	return identity.Identity{}, identity.ErrNotFound
}

// Purge does nothing.
func (d directory) Purge(string) {}

// KeysAt returns no keys.
func (d directory) KeysAt(context.Context, string, time.Time) ([]*repo.Key, error) {
	return nil, nil
}
