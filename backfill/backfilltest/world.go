// Package backfilltest sets up tests of backfill and discovery: a simulated network, a store, and a
// runner of package backfill between them.
package backfilltest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/filter"
	"cistern/gate"
	"cistern/ingest/identity"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"

	"golang.org/x/sync/errgroup"
)

// World is a simulated network, a store and a runner between them.
type World struct {
	T     testing.TB
	Clock Clock
	Net   *simnet.Network
	Store *store.Store
	Dir   *identity.Directory
	Run   *backfill.Runner
	Gate  *gate.Gate
	Stop  func() // stops the loops, and then those of the store
	End   func() // makes the loops begin to stop
	// Beside is woken with Run, unless it is nil.
	Beside interface{ Wake() }
}

// Options are the options of the parts of a World.
type Options struct {
	Net   simnet.Options
	Store store.Options
}

// groupAge is the age at which the store of a World flips an import group.
const groupAge = 5 * time.Millisecond

// Pausing is the cause with which tests shut gates.
var Pausing = gate.Cause{Name: "test"}

// New makes a network and a store. The test calls Make and Go.
func New(t testing.TB, o Options) *World {
	t.Helper()
	w := &World{T: t, Stop: func() {}}
	o.Net.Seed = max(o.Net.Seed, 1)
	t.Logf("seed %d", o.Net.Seed)
	var err error
	if w.Net, err = simnet.New(o.Net); err != nil {
		t.Fatal(err)
	}
	if err := w.Net.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Net.Close() })
	o.Store.Now = w.Clock.Now
	o.Store.GroupAge = groupAge
	w.Store = storetest.Open(t, o.Store)
	t.Cleanup(func() { w.Stop() })
	return w
}

// Make makes a runner over the network and the store.
func (w *World) Make(o backfill.Options) {
	w.T.Helper()
	var err error
	w.Dir, err = identity.New(identity.Options{
		PLC: []string{w.Net.PLC()}, AllowPrivate: true, Now: w.Clock.Now,
	})
	if err != nil {
		w.T.Fatal(err)
	}
	o.Store, o.AllowPrivate, o.Now, o.SpoolDir = w.Store, true, w.Clock.Now, w.T.TempDir()
	if o.Directory == nil {
		o.Directory = w.Dir
	}
	w.Gate = new(gate.Gate)
	o.Gate = w.Gate
	if o.Logger == nil {
		o.Logger = Logger()
	}
	if w.Run, err = backfill.New(o); err != nil {
		w.T.Fatal(err)
	}
}

// Logger returns the logger of tests that do not read the log: nil, unless the environment asks for
// the log.
func Logger() *slog.Logger {
	if os.Getenv("CISTERNTEST_LOG") == "" {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// Go runs the runner, the store and other loops, until Stop.
func (w *World) Go(beside ...func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	w.End = cancel
	var g, sg errgroup.Group
	storeCtx, cancelStore := context.WithCancel(context.Background())
	for _, run := range append([]func(context.Context) error{w.Run.Run}, beside...) {
		g.Go(func() error { return run(ctx) })
	}
	sg.Go(func() error { return w.Store.Run(storeCtx) })
	w.Stop = func() {
		cancel()
		if err := g.Wait(); err != nil {
			w.T.Errorf("runner: %v", err)
		}
		cancelStore()
		if err := sg.Wait(); err != nil {
			w.T.Errorf("store: %v", err)
		}
		if taken := w.permits(); taken != 0 {
			w.T.Errorf("after the end %d permits are taken", taken)
		}
		w.Stop = func() {}
	}
}

// permits returns how many permits of hosts are taken.
func (w *World) permits() (taken int) {
	all, _, err := w.Store.Hosts("", 1<<20, func(h *store.Host) bool { return h.ID != 0 })
	if err != nil {
		w.T.Fatal(err)
	}
	for _, h := range all {
		taken += w.Run.Hosts().Standing(h.ID).Running
	}
	return taken
}

// Wake makes all loops look for work, as the daemon does.
func (w *World) Wake() {
	w.Run.Wake()
	if w.Beside != nil {
		w.Beside.Wake()
	}
}

// Until waits for a condition.
func (w *World) Until(what string, cond func() bool) {
	w.T.Helper()
	w.UntilFor(20*time.Second, what, cond)
}

// UntilFor is Until with a given patience: the test fails when the store has not changed for that
// long.
func (w *World) UntilFor(patience time.Duration, what string, cond func() bool) {
	w.T.Helper()
	state, deadline := "", time.Time{}
	for !cond() {
		now := time.Now()
		if s := fmt.Sprint(w.Store.Counts(), w.Store.Head()); s != state {
			state, deadline = s, now.Add(patience)
		}
		if now.After(deadline) {
			w.T.Fatalf("still waiting for: %s; counts %v", what, w.Store.Counts())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// Filter puts a filter in force.
func (w *World) Filter(c filter.Config) {
	w.T.Helper()
	if _, err := w.Store.SetFilter(c); err != nil {
		w.T.Fatal(err)
	}
	w.Wake()
}

// Gauges checks that the counters agree with the rows.
func (w *World) Gauges() {
	w.T.Helper()
	storetest.Check(w.T, w.Store)
}
