package maintain

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"cistern/loop"

	"golang.org/x/sync/errgroup"
)

// Coordinator runs operations.
type Coordinator struct {
	opts Options
	woke chan struct{} // wakes Run; buffer of one

	// owned by Run:
	operations errgroup.Group
	stops      map[*task]context.CancelFunc // of what runs

	// mu guards:
	mu      sync.Mutex
	m       *machine
	runs    bool // Run was called and has not returned
	ended   bool // Run has returned
	waiter  uint64
	waiters map[uint64]chan<- error
	pauses  []chan<- struct{} // of callers of Pause
}

// New returns a coordinator. Nothing runs before Run is called.
func New(o Options) (*Coordinator, error) {
	o = o.withDefaults()
	excludes, err := newTable(o.Operations, o.Together)
	if err := errors.Join(o.validate(), err); err != nil {
		return nil, fmt.Errorf("maintain: %w", err)
	}
	c := &Coordinator{opts: o, m: newMachine(o, excludes), woke: make(chan struct{}, 1),
		stops: map[*task]context.CancelFunc{}, waiters: map[uint64]chan<- error{}}
	if err := o.Registerer.Register(newMetrics(c.state)); err != nil {
		return nil, fmt.Errorf("maintain: %w", err)
	}
	return c, nil
}

// Schedule requests a run of an operation and returns at once. A run that begins later meets the
// request. The request survives a restart as soon as its row is saved, which Run does at once, or
// after Resume, or at its end. The error is ErrUnknown, or ErrStopped if Run has ended or is
// ending.
func (c *Coordinator) Schedule(name string) error {
	return c.request(name, func(t *task, _ time.Time) error {
		c.m.schedule(t)
		return nil
	})
}

// Await requests a run of an operation, and returns the result of the run that meets the request:
// nil, the error of the operation, a NeedError or ErrCancelled. If ctx ends first, the request is
// taken back and the error is that of ctx. Other errors are ErrUnknown, ErrBusy, and ErrStopped if
// Run ends first.
func (c *Coordinator) Await(ctx context.Context, name string) error {
	result := make(chan error, 1)
	var id uint64
	err := c.request(name, func(t *task, _ time.Time) error {
		id = c.waiter + 1
		if err := c.m.await(t, id); err != nil {
			return err
		}
		c.waiter, c.waiters[id] = id, result
		return nil
	})
	if err != nil {
		return err
	}
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		c.leave(name, id)
		return ctx.Err()
	}
}

func (c *Coordinator) leave(name string, waiter uint64) {
	c.event(name, func(t *task, now time.Time) error {
		delete(c.waiters, waiter)
		c.m.leave(t, waiter, now)
		return nil
	})
}

// Cancel cancels the runs of an operation that are requested or have begun, for all their
// observers, and reports whether there was one. What runs ends when the operation has stopped. The
// error is ErrUnknown or ErrStopped.
func (c *Coordinator) Cancel(name string) (found bool, err error) {
	err = c.request(name, func(t *task, now time.Time) error {
		found = c.m.cancel(t, now)
		return nil
	})
	return found, err
}

// request is event for what must be saved, which Run does not once it is ending: the rows may be
// saved for the last time.
func (c *Coordinator) request(name string, fn func(*task, time.Time) error) error {
	return c.event(name, func(t *task, now time.Time) error {
		if c.m.ending {
			return ErrStopped
		}
		return fn(t, now)
	})
}

// event has fn change the machine, and Run act upon it.
func (c *Coordinator) event(name string, fn func(*task, time.Time) error) error {
	defer loop.Wake(c.woke)
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.m.find(name)
	switch {
	case t == nil:
		return fmt.Errorf("%q: %w", name, ErrUnknown)
	case c.ended:
		return ErrStopped
	}
	return fn(t, c.opts.Now())
}

// SetDisk states why the disk is short, for people; an empty text states that there is space.
// While the disk is short, operations that free space run first, and none that consumes space runs.
func (c *Coordinator) SetDisk(shortage string) {
	defer loop.Wake(c.woke)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.m.setDisk(shortage, c.opts.Now())
}

// Pause lets nothing begin, tells what runs to stop, and returns when nothing runs and nothing is
// saved any more. If ctx ends first, the coordinator is paused nevertheless. A second call replaces
// the reason, which is for people. Requests that are made meanwhile are saved after Resume, or when
// Run ends, and callers of Await are told nothing before that.
func (c *Coordinator) Pause(ctx context.Context, reason string) error {
	quiet := make(chan struct{})
	c.mu.Lock()
	c.m.pause(cmp.Or(reason, "no reason was given"))
	runs := c.runs
	if runs {
		c.pauses = append(c.pauses, quiet)
	} else {
		c.m.quiet = true
	}
	c.mu.Unlock()
	if !runs {
		return nil
	}
	loop.Wake(c.woke)
	select {
	case <-quiet:
		return nil
	case <-ctx.Done():
		c.mu.Lock()
		defer c.mu.Unlock()
		c.pauses = slices.DeleteFunc(c.pauses, func(p chan<- struct{}) bool { return p == quiet })
		return ctx.Err()
	}
}

// Resume ends a pause. It does nothing once the context of Run has ended.
func (c *Coordinator) Resume() {
	defer loop.Wake(c.woke)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.m.ending { // else operations would begin that Run does not wait for
		c.m.resume()
	}
}

// View returns the state of all operations.
func (c *Coordinator) View() View {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m.view(c.opts.Now())
}

// state returns what metrics show.
func (c *Coordinator) state() (all []Status, tallies []tally) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.m.tasks {
		tallies = append(tallies, t.tally)
	}
	return c.m.view(c.opts.Now()).Operations, tallies
}

// Run loads the rows and runs operations until ctx ends: then operations are told to stop, all rows
// are saved, also while paused, and callers of Await get ErrStopped. The error is that of the
// Keeper; after it nothing more is saved. Run may be called once.
func (c *Coordinator) Run(ctx context.Context) error {
	c.mu.Lock()
	again := c.runs || c.ended
	c.runs = true
	c.mu.Unlock()
	if again {
		return errors.New("maintain: Run was called before")
	}
	defer c.close()
	rows, err := c.opts.Keeper.Load()
	if err != nil {
		return fmt.Errorf("load the rows of operations: %w", err)
	}
	c.mu.Lock()
	c.m.load(rows)
	c.mu.Unlock()
	for err == nil && ctx.Err() == nil {
		var wake time.Time
		if wake, err = c.work(ctx); err == nil {
			loop.Sleep(ctx, wake.Sub(c.opts.Now()), c.woke)
		}
	}
	return c.stop(ctx, err)
}

// stop ends what runs. Without an error it saves the rows.
func (c *Coordinator) stop(ctx context.Context, err error) error {
	c.mu.Lock()
	c.m.stop()
	c.mu.Unlock()
	if err == nil {
		_, err = c.work(ctx) // the operations are known to be told to stop before they are told
	}
	for _, stop := range c.stops {
		stop()
	}
	c.operations.Wait()
	if err == nil {
		_, err = c.work(ctx)
	}
	return err
}

// close tells all callers that Run has ended.
func (c *Coordinator) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.runs, c.ended = false, true
	for id, result := range c.waiters {
		delete(c.waiters, id)
		result <- ErrStopped
	}
	c.quieten()
}

// quieten tells callers of Pause that nothing runs. Called with mu held.
func (c *Coordinator) quieten() {
	for _, quiet := range c.pauses {
		close(quiet)
	}
	c.pauses = nil
}

// work does what the machine decides, and returns when it must be called again.
func (c *Coordinator) work(ctx context.Context) (wake time.Time, err error) {
	c.mu.Lock()
	a := c.m.step(c.opts.Now())
	c.mu.Unlock()
	// Before an operation begins and before its result is told: a crash in between leaves rows by
	// which the operation is pending again, or which state the result.
	for _, row := range a.save {
		if err := c.opts.Keeper.Save(row); err != nil {
			return wake, fmt.Errorf("save the row of operation %s: %w", row.Name, err)
		}
	}
	c.tell(a)
	for _, t := range a.stop {
		c.stops[t]()
	}
	for _, b := range a.begin {
		c.begin(ctx, b)
	}
	return a.wake, nil
}

// tell releases callers of Await and Pause.
func (c *Coordinator) tell(a actions) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range a.release {
		for _, id := range r.waiters {
			if result, waits := c.waiters[id]; waits {
				delete(c.waiters, id)
				result <- r.err
			}
		}
	}
	if a.quiet && c.m.quiet { // not if Resume came in between
		c.quieten()
	}
}

// begin runs an operation. Its context does not end with ctx: the machine must know first that the
// operation is told to stop.
func (c *Coordinator) begin(ctx context.Context, b beginning) {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	c.stops[b.task] = stop
	c.opts.Logger.Debug("maintenance begins", "operation", b.task.Name)
	c.operations.Go(func() error {
		last, err := c.perform(ctx, b)
		stop()
		c.returned(b.task, last, err)
		return nil
	})
}

// perform calls the function of an operation, unless the operation is not due as its last success
// shows, which then began at last.
func (c *Coordinator) perform(ctx context.Context, b beginning) (last time.Time, err error) {
	if b.ask {
		last, err = b.task.Last(ctx)
		if err != nil {
			return time.Time{}, fmt.Errorf("ask for the last success: %w", err)
		}
		if age := c.opts.Now().Sub(last); !last.IsZero() && age >= 0 && age < b.task.Every {
			return last, nil
		}
	}
	return time.Time{}, b.task.Run(ctx, b.progress)
}

func (c *Coordinator) returned(t *task, last time.Time, err error) {
	defer loop.Wake(c.woke)
	c.mu.Lock()
	failed := c.m.returned(t, last, err, c.opts.Now())
	c.mu.Unlock()
	if failed {
		c.opts.Logger.Warn("maintenance failed: it is tried again by its schedule, if it has one",
			"operation", t.Name, "err", err)
		return
	}
	c.opts.Logger.Debug("maintenance ends", "operation", t.Name, "err", err)
}
