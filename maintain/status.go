package maintain

import "time"

// Condition is what an operation does at the moment.
type Condition string

const (
	Idle        Condition = "idle"
	Pending     Condition = "pending"     // requested, and has not begun
	Interrupted Condition = "interrupted" // has begun, and continues later
	Running     Condition = "running"
	Stopping    Condition = "stopping" // runs, and was told to stop
)

// Status describes one operation.
type Status struct {
	Name      string
	Condition Condition
	Waits     string    // why an operation that is pending or interrupted does not run; for people
	NeededBy  []string  // operations that are interrupted until this one has run
	Requested bool      // another run follows the current one
	Since     time.Time // when it began to run, or continued; zero if it does not run
	Work      Work      // of the current run

	Ended     time.Time     // end of the last run; zero if there was none
	Succeeded time.Time     // end of the last success
	Error     string        // of the last run; empty for success
	Failures  int           // since the last success
	Due       time.Time     // of the next scheduled run; zero if there is no schedule
	Every     time.Duration // the period of the schedule; 0 on request only
	Hours     Hours         // in which scheduled runs begin
}

// View describes the coordinator and its operations at one moment.
type View struct {
	Operations []Status // in the order of Options.Operations
	Paused     string   // why nothing may run; empty if it may
	Shortage   string   // why the disk is short; empty if it is not
	// Exhausted says that the disk is still short although all operations that free space have
	// ended, or wait for others. They are tried again every minute.
	Exhausted bool
}

func (m *machine) view(now time.Time) View {
	now = now.In(m.location)
	v := View{Paused: m.paused, Shortage: m.shortage}
	v.Exhausted = m.shortage != "" && m.reliefAt.After(now) && !m.relieving()
	for _, t := range m.tasks {
		v.Operations = append(v.Operations, t.status(now))
	}
	return v
}

func (t *task) status(now time.Time) Status {
	o := t.outcome
	s := Status{Name: t.Name, Condition: t.condition(), Requested: t.current != nil && t.next != nil,
		Ended: o.ended, Succeeded: o.succeeded, Error: o.err, Failures: o.failures,
		Every: t.Every, Hours: t.Hours}
	for _, r := range t.runs() {
		s.NeededBy = append(s.NeededBy, names(r.dependents)...)
	}
	if t.running {
		s.Since = t.since
	} else if !t.idle() {
		s.Waits = t.waits
	}
	if t.current != nil {
		s.Work = t.current.progress.Work()
	}
	if t.Every > 0 {
		s.Due = t.nextDue(now)
	}
	return s
}

func (t *task) condition() Condition {
	switch {
	case t.running && (t.stopping || t.current.cancelled):
		return Stopping
	case t.running:
		return Running
	case t.current != nil:
		return Interrupted
	case t.next != nil:
		return Pending
	default:
		return Idle
	}
}
