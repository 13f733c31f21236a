package maintain

import "time"

// Keeper keeps the rows of all operations across restarts.
type Keeper interface {
	// Load returns all rows, in any order. Rows of unknown operations are ignored.
	Load() ([]Row, error)
	// Save replaces the row of an operation, durably. It is never called twice at a time. An error
	// ends Run.
	Save(Row) error
}

// Row is what survives a restart of one operation.
type Row struct {
	Name    string
	Began   bool     // a run has begun and not ended
	Needs   int      // how often that run needed another operation
	Behind  []string // operations that are interrupted until that run has ended
	Next    bool     // a run is requested that has not begun
	Waiting []string // operations that are interrupted until that run has ended

	Ended     time.Time // end of the last run; zero if there was none
	Succeeded time.Time // end of the last success
	Error     string    // of the last run; empty for success
	Failures  int       // since the last success
	Due       time.Time // of the next scheduled run
}

// row returns the row of t. Waiters do not survive a restart, but the run that they wait for does.
// A scheduled run that has not begun is not in the row: it is due again.
func (t *task) row() Row {
	o := t.outcome
	row := Row{Name: t.Name, Ended: o.ended, Succeeded: o.succeeded, Error: o.err,
		Failures: o.failures, Due: o.due}
	if r := t.current; r != nil && !r.cancelled {
		row.Began, row.Needs, row.Behind = true, r.needs, names(r.dependents)
	}
	if r := t.next; r != nil {
		row.Next, row.Waiting = r.asked || len(r.waiters) > 0, names(r.dependents)
	}
	return row
}

func names(tasks []*task) (all []string) {
	for _, t := range tasks {
		all = append(all, t.Name)
	}
	return all
}

// load restores what the rows say. Runs that had begun are interrupted, and come before all
// requests.
func (m *machine) load(rows []Row) {
	for _, row := range rows {
		t := m.find(row.Name)
		if t == nil {
			continue
		}
		t.outcome = outcome{ended: row.Ended, succeeded: row.Succeeded, err: row.Error,
			failures: row.Failures, due: row.Due}
		if t.Last != nil {
			t.outcome.due = time.Time{} // what Last returns counts, and not the row
		}
		if row.Began {
			t.current = &run{asked: true, needs: row.Needs, progress: &Progress{}}
		}
		if row.Next {
			m.schedule(t)
		}
		t.dirty = true // a crash between two rows may have left an operation that waits no more
	}
	for _, row := range rows {
		if t := m.find(row.Name); t != nil {
			m.rejoin(t, row.Behind, func() *run { return t.current })
			m.rejoin(t, row.Waiting, func() *run { return m.request(t) })
		}
	}
}

// rejoin has operations wait for a run of t again. Rows are saved one by one, so the row of t may
// be older than theirs: an operation without a run needs nothing any more.
func (m *machine) rejoin(t *task, operations []string, of func() *run) {
	for _, name := range operations {
		d := m.find(name)
		if d == nil || d.current == nil || d.current.behind != nil || t.reaches(d) {
			continue
		}
		if r := of(); r != nil {
			r.dependents = append(r.dependents, d)
			d.current.behind = t
		}
	}
}
