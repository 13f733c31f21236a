package phase

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"cistern/gate"
	"cistern/loop"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// DurationMax is the longest time for which a phase may be requested.
	DurationMax = 24 * time.Hour
	// pollEvery is how often parts are asked whether they still work.
	pollEvery = 20 * time.Millisecond
	// freezeRetry is how long after a failure the disk is tried to be shut again.
	freezeRetry = time.Second
	// causeName is the cause of the gates that a phase shuts.
	causeName = "phase"
)

// Part is a part of the daemon that works over the network.
type Part struct {
	Name string
	Gate *gate.Gate
	// Halts means that what runs is ended too, and goes on where it was when the gate opens.
	Halts bool
	// Busy returns what is left of the work that began before the gate was shut, "" for nothing.
	// What has ended is durable, or as good as durable: it would begin again after a crash.
	Busy func() string
	// Patience is how long the work is waited for. What is left then needs nothing but memory until
	// the phase ends, and losing it loses nothing. Default 0: until it has ended.
	Patience time.Duration
}

// Options of New. The zero value of a field takes the default.
type Options struct {
	// Parts are the parts of the daemon.
	Parts []Part
	// Suspended is why the daemon is suspended until it ends, as a sentence. Its disk is shut already,
	// and Run is not to be called. Default "": the daemon is active.
	Suspended string
	// Freeze shuts the disk, and returns once all that was written is durable and nothing writes any
	// more. Thaw opens it. Required.
	Freeze func(context.Context) error
	Thaw   func()
	// Thawed is called after Thaw, to write what was kept in memory. An error ends Run. Default:
	// nothing.
	Thawed func() error
	// Logger. Default: discard.
	Logger *slog.Logger
	// Registerer takes the metric. Default: a private registry.
	Registerer prometheus.Registerer
}

// Keeper brings the daemon into the phase that is wanted.
type Keeper struct {
	opts Options

	mu      sync.Mutex
	machine Machine            // mu guards
	since   time.Time          // mu guards: when the phase began
	busy    []string           // mu guards
	failure string             // mu guards
	changed chan struct{}      // mu guards: closed, and replaced, at each change
	abandon context.CancelFunc // mu guards: ends the action that runs; nil if none does
}

// New returns a Keeper of an active daemon, or of one that is suspended for good. It starts
// nothing: call Run.
func New(o Options) (*Keeper, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	if o.Thawed == nil {
		o.Thawed = func() error { return nil }
	}
	if o.Freeze == nil || o.Thaw == nil {
		return nil, errors.New("phase needs a disk to freeze and to thaw")
	}
	k := &Keeper{opts: o, since: time.Now(), changed: make(chan struct{})}
	if o.Suspended != "" {
		k.machine.Suspend()
		k.shut(o.Suspended)
	}
	return k, k.register(o.Registerer)
}

// Request wants a phase for a time, after which the daemon becomes active by itself. The time
// counts from now, and not from when the phase is reached. For Active it is ignored. The error
// names the duration if it is not in (0, DurationMax], or is ErrStopping, or ErrSuspended with the
// reason.
func (k *Keeper) Request(p Phase, d time.Duration) error {
	if p != Active && (d <= 0 || d > DurationMax) {
		return fmt.Errorf("duration %s of phase %s: want more than 0 and at most %s", d, p, DurationMax)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.machine.Request(p, time.Now().Add(d)); errors.Is(err, ErrSuspended) {
		return fmt.Errorf("%w: %s", err, k.opts.Suspended)
	} else if err != nil {
		return err
	}
	k.opts.Logger.Info("phase requested", "phase", p.String(), "for", d)
	if p != Active && k.machine.Phase() != Active {
		k.shut(k.reason()) // with the new time
	}
	k.note()
	return nil
}

// Stop ends work for good, because the daemon stops: the gates shut at once and stay shut, and the
// disk opens if it is shut, unless the daemon is suspended for good.
func (k *Keeper) Stop() {
	k.mu.Lock()
	k.machine.Stop()
	k.note()
	k.mu.Unlock()
	k.shut("the daemon is stopping")
}

// note announces a change. mu is held.
func (k *Keeper) note() {
	if k.abandon != nil {
		k.abandon()
	}
	k.announce()
}

// announce wakes the callers that await a status. mu is held.
func (k *Keeper) announce() {
	close(k.changed)
	k.changed = make(chan struct{})
}

// Status returns the present phase.
func (k *Keeper) Status() Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	st := Status{Phase: k.machine.Phase(), Reached: k.machine.Reached(), Since: k.since,
		Busy: slices.Clone(k.busy), Failure: k.failure, Reason: k.opts.Suspended}
	st.Wanted, st.Until = k.machine.Wanted()
	return st
}

// Await waits until the phase that is wanted is reached, or until ctx ends, and returns the status.
func (k *Keeper) Await(ctx context.Context) Status {
	for {
		k.mu.Lock()
		changed, reached := k.changed, k.machine.Reached()
		k.mu.Unlock()
		if reached || ctx.Err() != nil {
			return k.Status()
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
}

// Run takes the actions that lead to the phases that are wanted, until ctx ends. The disk is open
// when it returns. An error is one of Options.Thawed.
func (k *Keeper) Run(ctx context.Context) error {
	defer k.opts.Thaw()
	for ctx.Err() == nil {
		a, wanted := k.next(ctx)
		if err := k.take(wanted, a); err != nil {
			return err
		}
	}
	return nil
}

// next returns the next action, and a context that ends when something else is wanted, or when the
// time of the phase is over. No request comes between the two: it would not end the action.
func (k *Keeper) next(ctx context.Context) (Action, context.Context) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.machine.Expire(time.Now()) {
		k.opts.Logger.Warn("the time of the phase is over: the daemon resumes by itself",
			"phase", k.machine.Phase().String())
		k.announce()
	}
	if _, until := k.machine.Wanted(); until.IsZero() {
		ctx, k.abandon = context.WithCancel(ctx)
	} else {
		ctx, k.abandon = context.WithDeadline(ctx, until)
	}
	return k.machine.Next(), ctx
}

// take takes an action of next, until its context ends.
func (k *Keeper) take(ctx context.Context, a Action) (err error) {
	ok := true
	switch a {
	case Rest:
		<-ctx.Done()
	case Shut:
		k.mu.Lock()
		reason := k.reason()
		k.mu.Unlock()
		k.shut(reason)
	case Drain:
		ok = k.drain(ctx)
	case Freeze:
		ok = k.freeze(ctx)
	case Thaw:
		k.opts.Thaw()
		err = k.opts.Thawed()
	case Open:
		for _, p := range k.opts.Parts {
			p.Gate.Open(causeName)
		}
	}
	k.end(a, ok)
	return err
}

// end records how an action ended.
func (k *Keeper) end(a Action, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.abandon()
	k.abandon, k.busy = nil, nil
	before := k.machine.Phase()
	if ok {
		k.machine.Done(a)
	}
	if p := k.machine.Phase(); p != before {
		k.since = time.Now()
		k.opts.Logger.Info("the phase has changed", "phase", p.String(), "from", before.String())
	}
	k.announce()
}

// reason returns why the gates are shut. mu is held.
func (k *Keeper) reason() string {
	p, until := k.machine.Wanted()
	if until.IsZero() {
		return "the daemon is stopping"
	}
	return fmt.Sprintf("the daemon is %s until %s, or until it is resumed", p,
		until.UTC().Format(time.RFC3339))
}

// shut shuts all gates.
func (k *Keeper) shut(reason string) {
	for _, p := range k.opts.Parts {
		p.Gate.Shut(gate.Cause{Name: causeName, Reason: reason, Halts: p.Halts})
	}
}

// drain waits until no part works any more, and reports whether it is so.
func (k *Keeper) drain(ctx context.Context) bool {
	begun := time.Now()
	for ctx.Err() == nil {
		var busy []string
		waited := false
		for _, p := range k.opts.Parts {
			if left := p.Busy(); left != "" {
				busy = append(busy, p.Name+": "+left)
				waited = waited || p.Patience == 0 || time.Since(begun) < p.Patience
			}
		}
		if !waited {
			return true
		}
		k.mu.Lock()
		k.busy = busy
		k.mu.Unlock()
		loop.Sleep(ctx, pollEvery, nil)
	}
	return false
}

// freeze shuts the disk, and reports whether it did.
func (k *Keeper) freeze(ctx context.Context) bool {
	err := k.opts.Freeze(ctx)
	failure := ""
	if err != nil && ctx.Err() == nil {
		failure = err.Error()
		k.opts.Logger.Error("the store cannot be frozen: trying again", "err", err, "in", freezeRetry)
	}
	k.mu.Lock()
	k.failure = failure
	k.mu.Unlock()
	if failure != "" {
		loop.Sleep(ctx, freezeRetry, nil)
	}
	return err == nil
}
