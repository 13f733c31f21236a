package phase_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cistern/gate"
	"cistern/phase"

	"github.com/prometheus/client_golang/prometheus"
)

// body is a daemon with two parts and a disk.
type body struct {
	t       *testing.T
	keeper  *phase.Keeper
	metrics *prometheus.Registry
	gates   [2]gate.Gate

	mu     sync.Mutex
	did    []string // mu guards
	busy   [2]string
	freeze error
}

func (b *body) note(what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.did = append(b.did, what)
}

// set changes what is left of the work of a part.
func (b *body) set(part int, left string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.busy[part] = left
}

// took returns what was done since the last call.
func (b *body) took() string {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	all := strings.Join(b.did, " ")
	b.did = nil
	return all
}

func inBody(t *testing.T, test func(t *testing.T, b *body)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &body{t: t, metrics: prometheus.NewRegistry()}
		left := func(part int) func() string {
			return func() string {
				b.mu.Lock()
				defer b.mu.Unlock()
				return b.busy[part]
			}
		}
		var err error
		b.keeper, err = phase.New(phase.Options{
			Parts: []phase.Part{
				{Name: "backfill", Gate: &b.gates[0], Busy: left(0)},
				{Name: "firehose", Gate: &b.gates[1], Busy: left(1), Halts: true, Patience: time.Minute},
			},
			Freeze: func(ctx context.Context) error {
				b.note(fmt.Sprintf("freeze(%t,%t)", b.gates[0].IsShut(), b.gates[1].IsShut()))
				b.mu.Lock()
				defer b.mu.Unlock()
				return errors.Join(ctx.Err(), b.freeze)
			},
			Thaw:       func() { b.note(fmt.Sprintf("thaw(%t)", b.gates[0].IsShut())) },
			Thawed:     func() error { b.note("thawed"); return nil },
			Registerer: b.metrics,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error, 1)
		go func() { result <- b.keeper.Run(ctx) }()
		test(t, b)
		cancel()
		if err := <-result; err != nil {
			t.Error(err)
		}
		if got := b.took(); !strings.HasSuffix(got, "thaw(true)") && !strings.HasSuffix(got, "thaw(false)") {
			t.Errorf("the disk may be shut at the end: %s", got)
		}
	})
}

func (b *body) request(p phase.Phase, d time.Duration) {
	b.t.Helper()
	if err := b.keeper.Request(p, d); err != nil {
		b.t.Fatal(err)
	}
}

// is compares the status, after what goes on has come to rest.
func (b *body) is(p phase.Phase, reached bool, busy ...string) {
	b.t.Helper()
	synctest.Wait()
	st := b.keeper.Status()
	if st.Phase != p || st.Reached != reached || !slices.Equal(st.Busy, busy) {
		b.t.Errorf("status %+v, want %s, reached %t, busy %q", st, p, reached, busy)
	}
}

// TestSuspend: the gates, the work, the disk, and back.
func TestSuspend(t *testing.T) {
	inBody(t, func(t *testing.T, b *body) {
		b.is(phase.Active, true)
		b.set(0, "3 repositories in flight")
		b.request(phase.Suspended, time.Hour)
		time.Sleep(time.Second)
		b.is(phase.Draining, false, "backfill: 3 repositories in flight")
		for i := range b.gates {
			c := b.gates[i].Causes()
			if len(c) != 1 || c[0].Halts != (i == 1) || !strings.Contains(c[0].Reason, "suspended until") {
				t.Errorf("gate %d: %+v", i, c)
			}
		}
		if got := b.took(); got != "" {
			t.Errorf("while work is in flight: %s", got)
		}
		b.set(0, "")
		if st := b.keeper.Await(t.Context()); st.Phase != phase.Suspended || !st.Reached {
			t.Errorf("awaited %+v", st)
		}
		if got := b.took(); got != "freeze(true,true)" {
			t.Errorf("suspending: %s", got)
		}
		b.request(phase.Active, 0)
		b.is(phase.Active, true)
		if got := b.took(); got != "thaw(true) thawed" || b.gates[0].IsShut() || b.gates[1].IsShut() {
			t.Errorf("resuming: %s", got)
		}
	})
}

// TestDeadline: a phase ends by itself, at the time of the last request, also while work is in flight.
func TestDeadline(t *testing.T) {
	inBody(t, func(t *testing.T, b *body) {
		b.request(phase.Suspended, time.Minute)
		b.is(phase.Suspended, true)
		time.Sleep(50 * time.Second)
		b.request(phase.Suspended, time.Minute)
		time.Sleep(59 * time.Second)
		b.is(phase.Suspended, true)
		time.Sleep(2 * time.Second)
		b.is(phase.Active, true)
		b.set(0, "a slow host")
		b.request(phase.Suspended, time.Minute)
		time.Sleep(59 * time.Second)
		b.is(phase.Draining, false, "backfill: a slow host")
		time.Sleep(2 * time.Second)
		b.is(phase.Active, true)
		for _, d := range []time.Duration{0, -time.Second, 25 * time.Hour} {
			if err := b.keeper.Request(phase.Draining, d); err == nil || !strings.Contains(err.Error(), d.String()) {
				t.Errorf("for %s: %v", d, err)
			}
		}
	})
}

// TestPatience: work that loses nothing is waited for within its patience, other work for ever.
func TestPatience(t *testing.T) {
	inBody(t, func(t *testing.T, b *body) {
		b.set(1, "2 events in flight")
		b.request(phase.Draining, time.Hour)
		time.Sleep(59 * time.Second)
		b.is(phase.Draining, false, "firehose: 2 events in flight")
		time.Sleep(2 * time.Second)
		b.is(phase.Draining, true)
	})
}

// TestFreezeFails: a disk that cannot be shut is tried again, and the status says so.
func TestFreezeFails(t *testing.T) {
	inBody(t, func(t *testing.T, b *body) {
		b.mu.Lock()
		b.freeze = errors.New("the disk is full")
		b.mu.Unlock()
		b.request(phase.Suspended, time.Hour)
		b.is(phase.Draining, false)
		if st := b.keeper.Status(); st.Failure != "the disk is full" {
			t.Errorf("status %+v", st)
		}
		b.mu.Lock()
		b.freeze = nil
		b.mu.Unlock()
		time.Sleep(2 * time.Second)
		b.is(phase.Suspended, true)
		if st := b.keeper.Status(); st.Failure != "" {
			t.Errorf("status %+v", st)
		}
	})
}

// TestStop: from any phase, the disk opens and the gates stay shut.
func TestStop(t *testing.T) {
	for _, from := range []phase.Phase{phase.Active, phase.Draining, phase.Suspended} {
		inBody(t, func(t *testing.T, b *body) {
			b.request(from, time.Minute)
			b.is(from, true)
			b.keeper.Stop()
			if !b.gates[0].IsShut() || !b.gates[1].IsShut() {
				t.Errorf("from %s: a gate is open at once after Stop", from)
			}
			b.is(phase.Draining, true)
			if got := b.took(); strings.HasSuffix(got, "thaw(true) thawed") != (from == phase.Suspended) {
				t.Errorf("from %s: %s", from, got)
			}
			if err := b.keeper.Request(phase.Active, 0); !errors.Is(err, phase.ErrStopping) {
				t.Errorf("from %s: a request is answered %v", from, err)
			}
			time.Sleep(time.Hour)
			b.is(phase.Draining, true)
		})
	}
}

// TestRequestBeforeAction: a request that comes when the next action is chosen and has not begun
// ends it too. Else a daemon would drain to the end though it was resumed.
func TestRequestBeforeAction(t *testing.T) {
	t.Parallel()
	never := func() string { return "a repository that never ends" }
	k, err := phase.New(phase.Options{
		Parts:  []phase.Part{{Name: "backfill", Gate: new(gate.Gate), Busy: never}},
		Freeze: func(context.Context) error { return nil }, Thaw: func() {},
	})
	if err != nil {
		t.Fatal(err)
	}
	next := func(want phase.Action) context.Context {
		t.Helper()
		a, ctx := k.Next(t.Context())
		if a != want || ctx.Err() != nil {
			t.Fatalf("next is action %d, %v; want %d", a, ctx.Err(), want)
		}
		return ctx
	}
	rest := next(phase.Rest)
	if err := k.Request(phase.Draining, time.Hour); err != nil || rest.Err() == nil {
		t.Fatalf("%v, and rest does not end", err)
	}
	k.Take(rest, phase.Rest)
	k.Take(next(phase.Shut), phase.Shut)
	drain := next(phase.Drain)
	if err := k.Request(phase.Active, 0); err != nil || drain.Err() == nil {
		t.Fatalf("%v, and the drain does not end", err)
	}
	k.Take(drain, phase.Drain)
	k.Take(next(phase.Open), phase.Open)
	if st := k.Status(); !st.Reached {
		t.Errorf("status %+v", st)
	}
}

// TestSuspendedForGood: a keeper of a daemon that stays suspended refuses every request with the
// reason, and neither a request nor the end of the daemon opens a gate or the disk.
func TestSuspendedForGood(t *testing.T) {
	t.Parallel()
	var g gate.Gate
	k, err := phase.New(phase.Options{
		Parts:     []phase.Part{{Name: "backfill", Gate: &g, Busy: func() string { return "" }}},
		Suspended: "it only reads",
		Freeze:    func(context.Context) error { return errors.New("is frozen already") },
		Thaw:      func() { t.Error("thawed") },
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []phase.Phase{phase.Active, phase.Draining, phase.Suspended} {
		if err := k.Request(p, time.Hour); !errors.Is(err, phase.ErrSuspended) || !strings.Contains(err.Error(), "it only reads") {
			t.Errorf("%s: %v", p, err)
		}
	}
	look := func() {
		t.Helper()
		if st := k.Status(); st.Phase != phase.Suspended || !st.Reached || st.Reason != "it only reads" || len(g.Causes()) == 0 {
			t.Errorf("status %+v, causes %v", st, g.Causes())
		}
	}
	look()
	k.Stop()
	look()
}
