package ingest

import (
	"context"
	"fmt"
	"time"

	"cistern/ingest/firehose"
	"cistern/ingest/frame"
	"cistern/ingest/identity"
	"cistern/store"
)

// Limits of accounts.
const (
	// heavyRecords is the number of records from which repositories, alone or together in one
	// group, are listed again outside of their shard: 20,000 rows take some 20 ms.
	heavyRecords = 20_000

	// collectionsMax and hiddenMax bound a repository as in package backfill.
	collectionsMax = 10_000
	hiddenMax      = 100_000
)

// statusOf returns the statement of an #account event: a status, or a mark, which hides nothing.
// Only statuses are ordered by time.
func statusOf(active bool, status string) (s store.Status, m store.Mark) {
	if active {
		return store.StatusActive, store.MarkNone
	}
	switch status {
	case "throttled":
		return store.StatusActive, store.MarkThrottled
	case "desynchronized":
		return store.StatusActive, store.MarkDesynchronized
	case "deleted":
		return store.StatusDeleted, store.MarkNone
	case "takendown":
		return store.StatusTakendown, store.MarkNone
	case "suspended":
		return store.StatusSuspended, store.MarkNone
	case "deactivated":
		return store.StatusDeactivated, store.MarkNone
	}
	return store.StatusInactive, store.MarkNone
}

// stated returns the time of an event in unix microseconds, now at the latest: a clock that is
// ahead must not suppress later statements of other sources. An event without a readable time
// counts as stated now.
func stated(f *frame.Frame, now time.Time) int64 {
	if at := now.UnixMicro(); f.Time <= 0 || f.Time > at {
		return at
	}
	return f.Time
}

// statement is the content of an #account event.
type statement struct {
	src    *firehose.Source
	at     int64 // unix microseconds
	status store.Status
	mark   store.Mark
}

// outdated reports whether a newer #account event supersedes this one. Events of one source are
// ordered by arrival, whatever their times: the hosts behind a relay have different clocks. Events
// of different sources are ordered by their times; at equal times a deletion wins. No other source
// supersedes a statement of the account's own host: the clock of a former host may be ahead.
func (st *statement) outdated(row *store.Repo) bool {
	switch {
	case row.AccountSource == 0:
		return false
	case st.src.ID() == row.AccountSource:
		// the same event again
		return st.at == row.AccountTime && st.status == row.Status && st.mark == row.Mark
	case st.src.PDSHost() != "" && st.src.PDSHost() == identity.HostOf(row.PDS) &&
		st.at != row.AccountTime:
		return false
	case st.at == row.AccountTime:
		return st.status != store.StatusDeleted || row.Status == store.StatusDeleted
	}
	return st.at < row.AccountTime
}

// decideAccount applies an #account event to its row. If heavy is set, it runs outside the shard.
func (it *item) decideAccount(w *writing, row *store.Repo, heavy bool) (err error) {
	st := statement{src: it.e.Source, at: stated(it.f, it.now)}
	st.status, st.mark = statusOf(it.f.Active, it.f.Status)
	why, wanted := it.wanted(row)
	if !wanted || row.Known() && st.outdated(row) {
		return nil
	}
	if !st.status.Hidden() && row.HiddenByRelay() && row.AccountSource != st.src.ID() {
		return nil // a relay has hidden the account, and another source cannot undo that
	}
	relists := row.Ordinal != 0 && st.mark == store.MarkNone && !st.status.Hidden() &&
		row.Status.Hidden()
	if relists && !heavy {
		if w.moved+row.Records >= heavyRecords {
			it.outcome, it.need = outcomePark, needHeavy
			return nil
		}
		w.moved += row.Records
	}
	row.AccountTime, row.AccountSource = st.at, st.src.ID()
	it.outcome = outcomeApplied
	switch {
	case st.status.Hidden():
		st.hide(w, row, why)
	case !row.Known():
		it.discover(w, row, "")
	case st.mark != store.MarkNone:
		row.Mark, row.Withheld = st.mark, true
		w.ask(row, fmt.Sprintf("%s says %s: asking the account's host", st.src.Name(), st.mark))
	default:
		it.outcome, err = w.show(row)
	}
	return err
}

// hide records that an account is not active. The data is kept: an #account may be wrong, or come
// from a former host. The account's host is therefore asked at once, and the data is wiped only
// when that host confirms a deletion. An unknown account is followed for the reason why, and its
// host is asked too: the event may come from a former host.
func (st *statement) hide(w *writing, row *store.Repo, why store.Why) {
	b := w.b
	if row.Status == st.status && row.State == store.StateGone {
		b.PutRepo(row) // no change: its host was asked, or will be asked
		return
	}
	// A fetch under way ends here. Its host may have been asked before this event, and an outdated
	// answer must not show the account.
	origin, text := store.OriginRelay, st.src.Name()+" says "+st.status.String()
	if st.src.PDSHost() != "" {
		origin = store.OriginHost
	}
	var next int64
	if !row.Known() {
		row.Tracked = why
	}
	switch {
	case row.Tracked != store.Untracked || st.status == store.StatusDeleted && row.Ordinal != 0:
		next = w.now.Add(w.r.budget.charge(row, statusAsk, w.now)).Unix()
		if row.State == store.StateResync && row.Retry.Count > 0 {
			next = max(next, row.Retry.Next) // its host or its document failed: do not ask sooner
		}
		text += ": the account's host is to be asked"
		w.wake = true
	}
	row.Mark = store.MarkNone
	b.Hide(row, st.status, origin, store.Retry{Next: next, Since: w.now.Unix(), Error: text})
	b.PutRepo(row)
}

// show records that an account is active. If it was hidden, its records are listed again. If it was
// hidden, or a source has withheld commits, its host is asked, since commits may be missing.
func (w *writing) show(row *store.Repo) (outcome, error) {
	b := w.b
	hidden := row.Status.Hidden()
	if !hidden && row.State != store.StateGone {
		row.Mark = store.MarkNone
		if row.Withheld {
			w.ask(row, "the account is active again: asking its host")
			return outcomeApplied, nil
		}
		b.PutRepo(row) // only the time of the event has changed
		return outcomeApplied, nil
	}
	cost := int64(statusAsk)
	if hidden {
		cost += row.Records
	}
	if wait := w.r.budget.charge(row, cost, w.now); wait > 0 {
		w.postpone(row, w.now.Add(wait))
		return outcomePostponed, nil
	}
	row.Status, row.Origin, row.Mark = store.StatusActive, store.OriginHost, store.MarkNone
	row.Resolved = 0 // the source may have withheld #identity while the account was hidden
	if hidden {
		b.Account(row)
		if row.Ordinal != 0 {
			if err := b.Relist(row); err != nil {
				return outcomeApplied, err
			}
		}
	}
	row.Retry, row.Missing = store.Retry{}, 0
	if row.Tracked == store.Untracked {
		b.Untrack(row)
	} else {
		row.Recheck = row.Ordinal != 0
		b.Enqueue(row, store.PriorityRetry)
		w.wake = true
	}
	b.PutRepo(row)
	return outcomeApplied, nil
}

// postpone keeps an active account hidden because its status changed too often, and records that in
// the row. When the row is due, the account's host is asked, and the account is shown. An account
// that is not followed stays hidden until its next event.
func (w *writing) postpone(row *store.Repo, due time.Time) {
	if row.Tracked != store.Untracked {
		w.wake = true // it may be due before all other rows
		row.Mark = store.MarkReturning
		w.b.Hide(row, row.Status, row.Origin, store.Retry{Next: due.Unix(), Since: w.now.Unix(),
			Error: "the account is active again; its status changed too often, so that it stays hidden " +
				"for a while"})
	}
	w.b.PutRepo(row)
}

// doHeavy handles the account event at the head of a parked backlog. When it returns, the change is
// durable and the event is counted.
func (r *Runner) doHeavy(_ context.Context, l *backlog) error {
	var it item
	it.take(l, l.head, r.opts.Now())
	wait, err := r.update(it.now, []string{l.did},
		func(w *writing, rows []store.Repo) ([]marks, error) {
			err := it.decideAccount(w, &rows[0], true)
			return []marks{{it.e.Source, []int64{it.e.Number}}}, err
		})
	if err != nil {
		return err
	}
	r.tally.events[it.job][it.outcome].Inc()
	if wait == nil {
		return nil
	}
	return wait()
}
