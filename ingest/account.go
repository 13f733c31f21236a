package ingest

import (
	"context"
	"fmt"
	"time"

	"cistern/ingest/frame"
	"cistern/store"
)

// Limits of accounts.
const (
	// heavyRecords is the size from which a repository, or those of one group together, are listed
	// again outside of their shard: 20,000 rows take some 20 ms.
	heavyRecords = 20_000

	// collectionsMax and hiddenMax bound a repository as in package backfill.
	collectionsMax = 10_000
	hiddenMax      = 100_000
)

// statusOf returns what an #account states: a status, or a mark, which hides nothing. Only statuses
// are ordered by time.
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
func (it *item) stated() int64 { return stated(it.f, it.now) }

func stated(f *frame.Frame, now time.Time) int64 {
	if at := now.UnixMicro(); f.Time <= 0 || f.Time > at {
		return at
	}
	return f.Time
}

// outdated reports whether a newer #account event supersedes this one. Events of one source are
// ordered by arrival, whatever their times: the hosts behind a relay have different clocks. Events
// of different sources are ordered by their times; at equal times a deletion wins.
func (it *item) outdated(row *store.Repo, status store.Status, mark store.Mark) bool {
	at := it.stated()
	switch {
	case row.AccountTime == 0:
		return false
	case it.e.src.id == row.AccountSource:
		// the same event again
		return at == row.AccountTime && status == row.Status && mark == row.Mark
	case at == row.AccountTime:
		return status != store.StatusDeleted || row.Status == store.StatusDeleted
	}
	return at < row.AccountTime
}

// decideAccount applies an #account event to its row. With heavy it runs outside the shard and may
// take long.
func (it *item) decideAccount(w *writing, row *store.Repo, heavy bool) error {
	status, mark := statusOf(it.f.Active, it.f.Status)
	why, wanted := it.wanted(row)
	if !wanted || row.Known() && it.outdated(row, status, mark) {
		return nil
	}
	if !status.Hidden() && row.HiddenByRelay() && row.AccountSource != it.e.src.id {
		return nil // a relay has hidden the account, and another source cannot undo that
	}
	relists := row.Ordinal != 0 && mark == store.MarkNone && !status.Hidden() && row.Status.Hidden()
	if relists && !heavy {
		if w.moved+row.Records >= heavyRecords {
			it.outcome, it.need = outcomePark, needHeavy
			return nil
		}
		w.moved += row.Records
	}
	row.AccountTime, row.AccountSource = it.stated(), it.e.src.id
	it.outcome = outcomeApplied
	switch {
	case status.Hidden():
		it.hide(w, row, status, why)
	case !row.Known():
		it.discover(w, row, "")
	case mark != store.MarkNone:
		row.Mark, row.Withheld = mark, true
		it.ask(w, row, fmt.Sprintf("%s says %s: asking the account's host", it.e.src.name(), mark))
	default:
		return it.show(w, row)
	}
	return nil
}

// hide records that an account is not active. The data is kept: an #account may be wrong, or come
// from a former host. The account's host is therefore asked at once, and the data is wiped only
// when that host confirms a deletion. An unknown account is followed for the reason why, and its
// host is asked, too: what hides it may be the word of a former host.
func (it *item) hide(w *writing, row *store.Repo, status store.Status, why store.Why) {
	b := w.b
	if row.Status == status && (row.State == store.StateGone || row.State == store.StatePending) {
		b.PutRepo(row) // known already; its host was asked, or is being asked
		return
	}
	origin, text := store.OriginRelay, it.e.src.name()+" says "+status.String()
	if it.e.src.pdsHost() != "" {
		origin = store.OriginHost
	}
	var next int64
	if !row.Known() {
		row.Tracked = why
	}
	switch {
	case row.Tracked != store.Untracked || status == store.StatusDeleted && row.Ordinal != 0:
		next = it.now.Add(it.r.budget.charge(row, statusAsk, it.now)).Unix()
		if row.State == store.StateResync && row.Retry.Count > 0 {
			next = max(next, row.Retry.Next) // its host or its document failed: do not ask sooner
		}
		text += ": the account's host is to be asked"
		w.wake = true
	}
	row.Mark = store.MarkNone
	b.Hide(row, status, origin, store.Retry{Next: next, Since: it.now.Unix(), Error: text})
	b.PutRepo(row)
}

// show records that an account is active. If it was hidden, its records are listed again. If it was
// hidden, or a source has held back commits, its host is asked, since commits may be missing.
func (it *item) show(w *writing, row *store.Repo) error {
	b := w.b
	hidden := row.Status.Hidden()
	if !hidden && row.State != store.StateGone {
		row.Mark = store.MarkNone
		if row.Withheld {
			it.ask(w, row, "the account is active again: asking its host")
			return nil
		}
		b.PutRepo(row) // its time only
		return nil
	}
	cost := int64(statusAsk)
	if hidden {
		cost += row.Records
	}
	if wait := it.r.budget.charge(row, cost, it.now); wait > 0 {
		it.postpone(w, row, it.now.Add(wait))
		return nil
	}
	row.Status, row.Origin, row.Mark = store.StatusActive, store.OriginHost, store.MarkNone
	row.Resolved = 0 // the source may have withheld #identity while the account was hidden
	if hidden {
		b.Account(row)
		if row.Ordinal != 0 {
			if err := b.Relist(row); err != nil {
				return err
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
	return nil
}

// postpone keeps an active account hidden because its status changed too often, and records that in
// the row. When the row is due, the account's host is asked and the account shown. An account that
// is not followed waits for its next event.
func (it *item) postpone(w *writing, row *store.Repo, due time.Time) {
	it.outcome = outcomePostponed
	if row.Tracked != store.Untracked {
		w.wake = true // it may be due before anything else
		row.Mark = store.MarkReturning
		w.b.Hide(row, row.Status, row.Origin, store.Retry{Next: due.Unix(), Since: it.now.Unix(),
			Error: "the account is active again; its status changed too often, so that it stays hidden for a while"})
	}
	w.b.PutRepo(row)
}

// ask writes the row so that the account's host is asked for the latest commit: at once, or when
// the budget of status changes allows. A fetch that waits asks it anyway. One under way is
// repeated, within the same budget: beyond it, a flood of events would have the repository fetched
// for ever.
func (it *item) ask(w *writing, row *store.Repo, why string) {
	b := w.b
	defer func() { b.PutRepo(row) }()
	if row.Tracked == store.Untracked {
		return
	}
	if row.State == store.StatePending {
		if it.r.budget.charge(row, statusAsk, it.now) == 0 {
			row.Asked++ // a fetch under way may have read the repository before what was withheld
		}
		return
	}
	wait := it.r.budget.charge(row, statusAsk, it.now)
	due := it.now.Add(wait).Unix()
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
		b.Defer(row, store.Retry{Kind: store.Generic, Next: due, Since: it.now.Unix(), Error: why})
	}
}

// doHeavy handles the account event at the head of a parked backlog. When it returns, that is
// durable and counted.
func (r *Runner) doHeavy(_ context.Context, l *backlog) error {
	var it item
	it.take(l, l.head, r.opts.Now())
	wait, err := r.update([]string{l.did}, func(w *writing, rows []store.Repo) ([]marks, error) {
		err := it.decideAccount(w, &rows[0], true)
		return []marks{{it.e.src, []int64{it.e.seq}}}, err
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
