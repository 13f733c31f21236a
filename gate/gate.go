package gate

import (
	"context"
	"errors"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
)

// Cause is why a gate is shut.
type Cause struct {
	Name   string // such as "operator": one name is one cause
	Reason string // a sentence for people
	Halts  bool   // work that has begun ends too
}

// Gate pauses one part of the daemon. The zero Gate is open.
type Gate struct {
	changed []func() // by OnChange

	// mu guards:
	mu     sync.Mutex
	causes []Cause       // in the order in which they came
	work   int           // begun by Begin and not ended, and the part in Run
	next   chan struct{} // closed and replaced at each change; nil if nothing waits for one
}

// OnChange has fn called after each change of the causes. It must be called before the gate is
// used, and fn must not block nor change the gate. Two changes at a time may reach fn in either
// order: fn looks at the gate.
func (g *Gate) OnChange(fn func()) { g.changed = append(g.changed, fn) }

// Shut adds a cause, or replaces the cause of that name, and reports whether the gate was open.
func (g *Gate) Shut(c Cause) (first bool) {
	g.change(func() {
		first = len(g.causes) == 0
		if i := g.index(c.Name); i >= 0 {
			g.causes[i] = c
			return
		}
		g.causes = append(g.causes, c)
	})
	return first
}

// Open removes the cause of a name, and reports whether it was the last one.
func (g *Gate) Open(name string) (last bool) {
	g.change(func() {
		if i := g.index(name); i >= 0 {
			g.causes = slices.Delete(g.causes, i, i+1)
			last = len(g.causes) == 0
		}
	})
	return last
}

// index returns the place of a cause, -1 for none. Called with mu held.
func (g *Gate) index(name string) int {
	return slices.IndexFunc(g.causes, func(c Cause) bool { return c.Name == name })
}

func (g *Gate) change(f func()) {
	g.mu.Lock()
	f()
	if g.next != nil {
		close(g.next)
		g.next = nil
	}
	g.mu.Unlock()
	for _, fn := range g.changed {
		fn()
	}
}

// Causes returns why the gate is shut, the oldest cause first. An open gate has no cause.
func (g *Gate) Causes() []Cause {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.causes)
}

// IsShut reports whether a cause holds the gate shut.
func (g *Gate) IsShut() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.causes) > 0
}

// ShutBy reports whether the cause of a name holds the gate shut.
func (g *Gate) ShutBy(name string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.index(name) >= 0
}

// Pass waits until the gate is open, and reports whether ctx is still alive then.
func (g *Gate) Pass(ctx context.Context) bool {
	g.await(ctx, func() bool { return len(g.causes) == 0 })
	return ctx.Err() == nil
}

// Begin counts a piece of work until end is called. It returns nil if the gate is shut: then the
// work must not begin.
func (g *Gate) Begin() (end func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.causes) > 0 {
		return nil
	}
	g.work++
	return g.end
}

// end counts down what has ended.
func (g *Gate) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.work--
}

// Working returns how many pieces of work have begun by Begin and not ended. What Run runs is one
// until it has returned.
func (g *Gate) Working() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.work
}

// enter waits until no cause halts the part, and counts it as work. It reports whether ctx is still
// alive then; end must follow.
func (g *Gate) enter(ctx context.Context) bool {
	entered := false
	g.await(ctx, func() bool {
		if entered = !g.halted(); entered {
			g.work++
		}
		return entered
	})
	return entered
}

// halted reports whether a cause halts the part. Called with mu held.
func (g *Gate) halted() bool {
	return slices.ContainsFunc(g.causes, func(c Cause) bool { return c.Halts })
}

// await waits until ok, which is called with mu held, or until ctx ends.
func (g *Gate) await(ctx context.Context, ok func() bool) {
	for ctx.Err() == nil {
		g.mu.Lock()
		if ok() {
			g.mu.Unlock()
			return
		}
		if g.next == nil {
			g.next = make(chan struct{})
		}
		next := g.next
		g.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-next:
		}
	}
}

// Run runs fn while no cause halts it. It ends the context of fn when one does, and runs fn again
// when none does any more, until ctx ends or fn fails. The error is that of fn.
func (g *Gate) Run(ctx context.Context, fn func(context.Context) error) error {
	for {
		if !g.enter(ctx) {
			return nil
		}
		part, stop := context.WithCancel(ctx)
		var watch errgroup.Group
		watch.Go(func() error {
			g.await(part, g.halted)
			stop()
			return nil
		})
		err := fn(part)
		stop()
		g.end()
		if err := errors.Join(err, watch.Wait()); err != nil || ctx.Err() != nil {
			return err
		}
	}
}
