package maintain

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// machine is the state of all operations. Its methods are the events; step returns what is to be
// done about them. Nothing else changes the state.
type machine struct {
	tasks    []*task // in the order of Options.Operations
	excludes table
	location *time.Location
	place    uint64 // of the newest request

	paused   string    // why nothing may run; empty if it may
	quiet    bool      // paused, nothing runs, and no row is to be saved
	ending   bool      // paused for good: rows are saved, and no request is taken any more
	shortage string    // why the disk is short; empty if it is not
	reliefAt time.Time // when operations that free space are requested again
	released []release // since the last step
}

// task is one operation and what is known of it.
type task struct {
	Operation
	index    int
	current  *run // began, and runs or is interrupted; nil if none
	next     *run // gathers requests; nil without a request
	running  bool // current runs
	stopping bool // current was told to stop
	since    time.Time
	waits    string // why a pending run does not begin, as of the last step
	outcome  outcome
	tally    tally
	dirty    bool // the row is to be saved
}

// run is one run of an operation, from the first request for it until its end.
type run struct {
	place      uint64    // in the order of requests
	asked      bool      // by Schedule, or by a request from before a restart
	due        bool      // by the schedule or a shortage of disk
	waiters    []uint64  // callers of Await
	dependents []*task   // operations that are interrupted until this run has ended
	behind     *task     // the operation that this run needs first; nil if none
	needs      int       // how often this run needed another operation
	cancelled  bool      // it ends as soon as the operation stops
	last       time.Time // when the success began that made this run needless; zero if it was not
	progress   *Progress
}

// outcome is what remains of the runs that have ended.
type outcome struct {
	ended     time.Time
	succeeded time.Time // end of the last success
	err       string    // of the last run; empty for success
	failures  int       // since the last success
	due       time.Time // of the next scheduled run, without regard to the hours
}

// release tells callers of Await the result.
type release struct {
	waiters []uint64
	err     error
}

func newMachine(o Options, excludes table) *machine {
	m := &machine{excludes: excludes, location: o.Location}
	for i, op := range o.Operations {
		m.tasks = append(m.tasks, &task{Operation: op, index: i})
	}
	return m
}

// find returns the task of a name, nil if no task has it.
func (m *machine) find(name string) *task {
	for _, t := range m.tasks {
		if t.Name == name {
			return t
		}
	}
	return nil
}

// request returns the run that a request of now is to observe: the next one.
func (m *machine) request(t *task) *run {
	if t.next == nil {
		m.place++
		t.next = &run{place: m.place, progress: &Progress{}}
	}
	t.dirty = true
	return t.next
}

func (m *machine) schedule(t *task) { m.request(t).asked = true }

func (m *machine) await(t *task, waiter uint64) error {
	if t.next != nil && len(t.next.waiters) >= waitersMax {
		return fmt.Errorf("%s: %w: %d is the most", t.Name, ErrBusy, waitersMax)
	}
	r := m.request(t)
	r.waiters = append(r.waiters, waiter)
	return nil
}

func (r *run) observed() bool {
	return r.asked || r.due || len(r.waiters) > 0 || len(r.dependents) > 0
}

// leave takes the request of a waiter back, if its run has not ended.
func (m *machine) leave(t *task, waiter uint64, now time.Time) {
	for _, r := range t.runs() {
		if i := slices.Index(r.waiters, waiter); i >= 0 {
			r.waiters = slices.Delete(r.waiters, i, i+1)
			m.abandon(t, r, now)
		}
	}
}

// runs returns the current and the next run.
func (t *task) runs() (all []*run) {
	for _, r := range []*run{t.current, t.next} {
		if r != nil {
			all = append(all, r)
		}
	}
	return all
}

// abandon cancels a run that no observer is left of.
func (m *machine) abandon(t *task, r *run, now time.Time) {
	if !r.observed() {
		m.end(t, r, now)
	}
}

// cancel cancels the runs of an operation for all observers, and reports whether there was one.
func (m *machine) cancel(t *task, now time.Time) bool {
	busy := !t.idle()
	if t.next != nil {
		m.end(t, t.next, now)
	}
	if t.current != nil {
		m.end(t, t.current, now)
	}
	return busy
}

// end cancels a run. One that runs ends when the operation has stopped.
func (m *machine) end(t *task, r *run, now time.Time) {
	t.dirty = true
	if r == t.current && t.running {
		r.cancelled = true
		return
	}
	m.finish(t, r, ErrCancelled, now)
}

// returned takes what the function of an operation returned, and reports whether the run failed. A
// run that was needless did nothing, because a success had begun at last.
func (m *machine) returned(t *task, last time.Time, err error, now time.Time) (failed bool) {
	r, stopped := t.current, t.stopping
	r.last = last
	t.tally.ran += max(0, now.Sub(t.since))
	t.running, t.stopping, t.dirty = false, false, true
	var needed *needs
	needing, interrupted := errors.As(err, &needed), stopped && errors.Is(err, context.Canceled)
	switch {
	case r.cancelled && (needing || interrupted):
		m.finish(t, r, ErrCancelled, now)
		return false
	case needing:
		if err = m.wait(t, needed.name); err == nil {
			return false
		}
	case interrupted: // the run stays, and continues later
		return false
	}
	m.finish(t, r, err, now)
	return err != nil
}

// wait has the current run of t wait for a run of another operation.
func (m *machine) wait(t *task, name string) error {
	r, other := t.current, m.find(name)
	r.needs++
	switch {
	case other == nil:
		return &NeedError{t.Name, name, ErrUnknown}
	case other.reaches(t):
		return &NeedError{t.Name, name, fmt.Errorf("%s waits for %s", name, t.Name)}
	case r.needs > needsMax:
		return &NeedError{t.Name, name, fmt.Errorf("one run needed others %d times", r.needs)}
	}
	n := m.request(other)
	n.place = min(n.place, r.place) // before all that was requested after this run began
	n.dependents = append(n.dependents, t)
	r.behind = other
	return nil
}

// reaches reports whether the next run of t waits, over others, for the current run of u.
func (t *task) reaches(u *task) bool {
	for t != u {
		if t.current == nil || t.current.behind == nil {
			return false
		}
		t = t.current.behind
	}
	return true
}

// finish ends a run with a result, nil for success, and tells all its observers.
func (m *machine) finish(t *task, r *run, err error, now time.Time) {
	t.dirty = true
	if r == t.current {
		t.current = nil
		t.record(r, err, now)
	} else {
		t.next = nil
	}
	if x := r.behind; x != nil {
		r.behind = nil
		for _, other := range x.runs() {
			other.dependents = slices.DeleteFunc(other.dependents, func(d *task) bool { return d == t })
			x.dirty = true
			m.abandon(x, other, now)
		}
	}
	if len(r.waiters) > 0 {
		m.released = append(m.released, release{r.waiters, err})
	}
	for _, d := range r.dependents {
		d.current.behind, d.dirty = nil, true
		if err != nil {
			m.finish(d, d.current, &NeedError{d.Name, t.Name, err}, now)
		}
	}
}

// record notes the result of a run. Cancelling is no failure: an operator who cancels a scheduled
// run does not want it back in a minute.
func (t *task) record(r *run, err error, now time.Time) {
	t.tally.count(err, errors.Is(err, ErrCancelled))
	o := &t.outcome
	o.ended, o.err, o.due = now, text(err), now.Add(t.Every)
	switch {
	case err == nil && !r.last.IsZero():
		o.succeeded, o.failures, o.due = r.last, 0, r.last.Add(t.Every)
	case err == nil:
		o.succeeded, o.failures = now, 0
		if t.Last != nil {
			o.due = t.since.Add(t.Every)
		}
	case !errors.Is(err, ErrCancelled):
		o.failures++
		delay := min(retryMin<<min(o.failures-1, 16), retryMax, t.Every)
		o.due = now.Add(delay)
	}
}

// pause says why nothing may run.
func (m *machine) pause(why string) { m.paused = why }

func (m *machine) resume() { m.paused, m.quiet = "", false }

// stop pauses for good. What a pause kept from being saved is saved now.
func (m *machine) stop() { m.paused, m.quiet, m.ending = "the daemon is stopping", false, true }

// setDisk says why the disk is short; an empty text says that it is not.
func (m *machine) setDisk(shortage string, now time.Time) {
	if m.shortage == "" {
		m.reliefAt = now
	}
	m.shortage = shortage
}
