package ingest

import (
	"time"

	"cistern/store"
)

// writing collects the changes of a group, and has the changes that several kinds of events make.
type writing struct {
	r    *Runner
	b    *store.Batch
	now  time.Time // time of the group
	wake bool      // rows were enqueued for a fetch
	// moved is the number of records wiped or listed again.
	moved int64
}

// update changes rows of repositories, and moves the cursors past the events of the change. wait is
// nil if nothing is written. The events count as done when the batch gets its place in the log: a
// crash that loses the changes also loses every cursor past them. If a group writes nothing, its
// events are done at once: the state that made them superfluous was applied earlier, so it is
// durable before any cursor that a later batch writes.
func (r *Runner) update(
	now time.Time, dids []string, decide func(w *writing, rows []store.Repo) ([]marks, error),
) (wait func() error, err error) {
	w, writes := writing{r: r, now: now}, false
	wait, err = r.store.Update(dids, func(b *store.Batch, rows []store.Repo) error {
		w.b = b
		done, err := decide(&w, rows)
		if err != nil {
			return err
		}
		writes = !b.Empty()
		for _, m := range done {
			if writes {
				b.SetCursor(m.src.URL(), func() int64 { return m.src.Finish(m.seqs...) })
			} else {
				m.src.Finish(m.seqs...)
			}
		}
		return nil
	})
	if err != nil || !writes {
		return nil, err
	}
	if w.wake {
		r.opts.Wake()
	}
	return wait, nil
}

// ask writes the row so that the account's host is asked for the latest commit: at once, or when
// the budget of status changes allows. A waiting fetch asks the host anyway. A fetch under way is
// repeated, within the same budget: otherwise a flood of events could cause fetches for ever.
func (w *writing) ask(row *store.Repo, why string) {
	b := w.b
	defer func() { b.PutRepo(row) }()
	if row.Tracked == store.Untracked {
		return
	}
	if row.State == store.StatePending {
		if w.r.budget.charge(row, statusAsk, w.now) == 0 {
			row.Asked++ // a fetch under way may have read the repository too early
		}
		return
	}
	wait := w.r.budget.charge(row, statusAsk, w.now)
	due := w.now.Add(wait).Unix()
	w.wake = true
	row.Recheck = row.Ordinal != 0
	switch {
	case row.State == store.StateGone || row.State == store.StateResync:
		if row.Retry.Next == 0 || row.Retry.Next > due {
			row.Retry.Next = due
		}
		return
	case wait == 0:
		b.Enqueue(row, store.PriorityRetry)
	default:
		b.Defer(row, store.Retry{Kind: store.Generic, Next: due, Since: w.now.Unix(), Error: why})
	}
}
