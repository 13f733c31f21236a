package maintain

import (
	"cmp"
	"slices"
	"time"
)

// actions are what is to be done, in this order: save the rows, release waiters, stop operations,
// and begin others. Nothing else happens before wake, unless there is an event.
type actions struct {
	save    []Row
	release []release
	stop    []*task
	begin   []beginning
	quiet   bool // the coordinator is paused and nothing runs
	wake    time.Time
}

// beginning is a run that begins or continues.
type beginning struct {
	task     *task
	progress *Progress
	ask      bool // whether the run is needed: nothing but the schedule requested it
}

// step requests what is due, and decides what begins and what stops.
func (m *machine) step(now time.Time) (a actions) {
	now = now.In(m.location)
	m.requestDue(now)
	for _, t := range m.choose(now) {
		if t.current == nil {
			t.current, t.next = t.next, nil
		}
		t.running, t.since, t.dirty = true, now, true
		ask := t.Last != nil && t.current.onlyDue() && !m.freeing(t)
		a.begin = append(a.begin, beginning{t, t.current.progress, ask})
	}
	running := false
	for _, t := range m.tasks {
		running = running || t.running
		if t.running && !t.stopping && (t.current.cancelled || m.interrupts(t, now)) {
			t.stopping = true
			a.stop = append(a.stop, t)
		}
		if t.dirty && !m.quiet {
			t.dirty = false
			a.save = append(a.save, t.row())
		}
	}
	if !m.quiet { // else the rows are not saved that state the results
		a.release, m.released = m.released, nil
	}
	m.quiet = m.paused != "" && !running && !m.ending
	a.quiet = m.quiet
	a.wake = m.wake(now)
	return a
}

// requestDue requests a run of each operation that is due by its schedule, and while the disk is
// short of each operation that frees space.
func (m *machine) requestDue(now time.Time) {
	relief := m.shortage != "" && !now.Before(m.reliefAt)
	if relief {
		m.reliefAt = now.Add(reliefEvery)
	}
	for _, t := range m.tasks {
		if latest := now.Add(t.Every); t.outcome.due.After(latest) {
			t.outcome.due = latest // the period was shortened, or the clock was ahead
		}
		due := t.Every > 0 && !now.Before(t.outcome.due) && t.Hours.Contain(now)
		if t.idle() && (due || relief && t.Space == Frees) {
			m.request(t).due = true
		}
	}
}

func (t *task) idle() bool { return t.current == nil && t.next == nil }

// choose returns what begins now.
func (m *machine) choose(now time.Time) (begin []*task) {
	urgent := slices.ContainsFunc(m.tasks, (*task).urgent)
	var before []*task // what must not be excluded: what runs, begins, or waits for its turn
	for _, t := range m.tasks {
		if t.running {
			before = append(before, t)
		}
	}
	for _, t := range m.pending() {
		t.waits = m.obstacle(t, urgent, now)
		if t.waits != "" {
			continue
		}
		if other := m.excluded(t, before); other != nil {
			t.waits = "waits for " + other.Name
		} else {
			begin = append(begin, t)
		}
		before = append(before, t)
	}
	return begin
}

// pending returns the tasks that have a run to begin or to continue, in the order in which they may
// begin.
func (m *machine) pending() (all []*task) {
	for _, t := range m.tasks {
		if t.pending() != nil {
			all = append(all, t)
		}
	}
	slices.SortStableFunc(all, func(a, b *task) int {
		if m.freeing(a) != m.freeing(b) {
			if m.freeing(a) {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.pending().place, b.pending().place)
	})
	return all
}

// pending returns the run that begins or continues when t may run. It is nil while t runs.
func (t *task) pending() *run {
	switch {
	case t.running:
		return nil
	case t.current != nil:
		return t.current
	default:
		return t.next
	}
}

// freeing reports whether t goes first because the disk is short.
func (m *machine) freeing(t *task) bool { return m.shortage != "" && t.Space == Frees }

// urgent reports whether t is needed first and runs alone, or is needed first by such an operation.
func (t *task) urgent() bool {
	for _, r := range t.runs() {
		if t.Alone && len(r.dependents) > 0 || slices.ContainsFunc(r.dependents, (*task).urgent) {
			return true
		}
	}
	return false
}

// obstacle returns why a pending operation cannot begin whatever else runs, "" if it can. Such an
// operation delays no other one.
func (m *machine) obstacle(t *task, urgent bool, now time.Time) string {
	r := t.pending()
	switch {
	case m.paused != "":
		return "paused: " + m.paused
	case r.behind != nil:
		return "needs " + r.behind.Name + " first"
	case m.shortage != "" && t.Space == Consumes:
		return "the disk is short: " + m.shortage
	case urgent && !t.urgent() && !m.freeing(t):
		return "an operation is needed that runs alone"
	case r == t.next && r.onlyDue() && !m.freeing(t) && !t.Hours.Contain(now):
		return "outside of the hours " + t.Hours.String()
	}
	return ""
}

// onlyDue reports whether nothing but the schedule has requested r.
func (r *run) onlyDue() bool { return !r.asked && len(r.waiters) == 0 && len(r.dependents) == 0 }

// excluded returns the first of some operations that t must not run beside, nil if it may run
// beside all.
func (m *machine) excluded(t *task, by []*task) *task {
	for _, other := range by {
		if m.excludes[t.index][other.index] {
			return other
		}
	}
	return nil
}

// interrupts reports whether t, which runs, has to make way.
func (m *machine) interrupts(t *task, now time.Time) bool {
	if m.paused != "" {
		return true
	}
	if m.shortage == "" || t.Space == Frees {
		return false
	}
	return t.Space == Consumes || slices.ContainsFunc(m.tasks, func(other *task) bool {
		return m.freeing(other) && other.pending() != nil && m.excludes[t.index][other.index] &&
			m.obstacle(other, false, now) == ""
	})
}

// relieving reports whether operations that free space run, or can begin.
func (m *machine) relieving() bool {
	return slices.ContainsFunc(m.tasks, func(t *task) bool {
		return m.freeing(t) && (t.running || t.pending() != nil && t.pending().behind == nil)
	})
}

// wake returns when something is due that needs no event.
func (m *machine) wake(now time.Time) time.Time {
	at := now.Add(wakeMax)
	earlier := func(t time.Time) {
		if t.After(now) && t.Before(at) {
			at = t
		}
	}
	if m.shortage != "" {
		earlier(m.reliefAt)
	}
	for _, t := range m.tasks {
		switch {
		case t.Every == 0 || t.current != nil:
		case t.next != nil:
			earlier(t.Hours.next(now)) // a due run may wait for the hours
		default:
			earlier(t.nextDue(now))
		}
	}
	return at
}

// nextDue returns when t begins next by its schedule, from now on.
func (t *task) nextDue(now time.Time) time.Time {
	if t.outcome.due.Before(now) {
		return t.Hours.next(now)
	}
	return t.Hours.next(t.outcome.due.In(now.Location()))
}
