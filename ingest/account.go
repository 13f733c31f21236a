package ingest

import (
	"context"
	"hash/crc32"
	"math"
	"time"

	"cistern/ingest/frame"
	"cistern/ingest/repo"
	"cistern/store"
)

// Limits of accounts.
const (
	// goneRecheck is when a repository that is not to be had is looked at again, as in package backfill.
	goneRecheck = 24 * time.Hour
	// heavyRecords is the size from which a repository, or those of one group together, are wiped and listed again
	// outside of their shard: 20,000 rows take some 20 ms.
	heavyRecords = 20_000

	// collectionsMax and hiddenMax bound a repository as in package backfill.
	collectionsMax = 10_000
	hiddenMax      = 100_000
)

// statusOf is the status that an #account tells. Statuses of the host's own infrastructure hide nobody.
func statusOf(active bool, status string) (s store.Status, ok bool) {
	if active {
		return store.StatusActive, true
	}
	switch status {
	case "throttled", "desynchronized":
		return 0, false
	case "deleted":
		return store.StatusDeleted, true
	case "takendown":
		return store.StatusTakendown, true
	case "suspended":
		return store.StatusSuspended, true
	case "deactivated":
		return store.StatusDeactivated, true
	}
	return store.StatusInactive, true
}

// stated is the time of an event in unix microseconds. One from the future would shut out those that follow.
func (it *item) stated() int64 { return stated(it.f, it.now) }

func stated(f *frame.Frame, now time.Time) int64 {
	if f.Time > now.Add(repo.RevSkewMax).UnixMicro() {
		return now.UnixMicro()
	}
	return f.Time
}

// decideAccount changes who may see a repository. With heavy it runs beside the shard and may take its time.
func (it *item) decideAccount(w *writing, row *store.Repo, heavy bool) error {
	status, ok := statusOf(it.f.Active, it.f.Status)
	why, wanted := it.wanted(row)
	if !wanted || !ok || row.Known() && it.stated() <= row.AccountTime {
		return nil
	}
	moves := row.Ordinal != 0 && (status == store.StatusDeleted || status == store.StatusActive && row.Status.Hidden())
	if moves && !heavy {
		if w.moved+row.Records >= heavyRecords {
			it.outcome, it.need = outcomePark, needHeavy
			return nil
		}
		w.moved += row.Records
	}
	row.AccountTime = it.stated()
	it.outcome = outcomeApplied
	switch {
	case status != store.StatusActive:
		return it.hide(w, row, status, why)
	case !row.Known():
		it.discover(w, row, "")
		return nil
	default:
		return it.show(w, row)
	}
}

// hide notes that an account is not active. What we hold stays, unless it was deleted: then data and
// account event go together, and older events of its records no longer expand. One that nobody knew is followed as why
// says: when it comes back, it is fetched.
func (it *item) hide(w *writing, row *store.Repo, status store.Status, why store.Why) error {
	b := w.batch()
	b.DropBuffer(row)
	next := it.now.Add(jittered(row.DID, goneRecheck)).Unix()
	switch {
	case !row.Known():
		row.Tracked, next = why, 0
	case row.Tracked == store.Untracked:
		next = 0
	case row.Resolved == 0 && (row.State == store.StatePending || row.Retry.Next != 0 && row.Retry.Next <= it.now.Unix()):
		next = it.now.Unix() // we were about to read whose account it is: that is done all the same, but not again for each event
		w.wake = true
	}
	if status == store.StatusDeleted && row.Ordinal != 0 {
		if err := b.Wipe(row); err != nil {
			return err
		}
		row.SeenRev = ""
	} else {
		row.Attempt++
	}
	changed := row.Status != status
	row.State, row.Status, row.Recheck = store.StateGone, status, false
	row.Retry = store.Retry{Next: next, Since: it.now.Unix()}
	row.Pending = store.PendingKey{Host: row.Pending.Host, Priority: store.PriorityRetry}
	b.PutRepo(row)
	if changed {
		b.Account(row)
	}
	return nil
}

// show notes that an account is active. One that comes back has its records told again, and its rev asked for.
func (it *item) show(w *writing, row *store.Repo) error {
	b := w.batch()
	hidden, gone := row.Status.Hidden(), row.State == store.StateGone
	if !hidden && !gone {
		b.PutRepo(row) // its time only
		return nil
	}
	if wait := it.r.budget.again(row, it.now); wait > 0 {
		it.postpone(w, row, it.now.Add(wait))
		return nil
	}
	row.Status = store.StatusActive
	if hidden {
		b.Account(row)
		if row.Ordinal != 0 {
			if err := b.Relist(row); err != nil {
				return err
			}
		}
	}
	row.Attempt++
	if row.Tracked == store.Untracked {
		row.State = store.StateIdle
	} else {
		row.State, row.Recheck = store.StatePending, row.Ordinal != 0
		row.Retry, row.Missing = store.Retry{}, 0
		w.wake = true
	}
	row.Pending = store.PendingKey{Host: row.Pending.Host, Priority: store.PriorityRetry}
	b.PutRepo(row)
	return nil
}

// postpone leaves an account hidden that came back too often. When it is due, its own host is asked; one that nobody
// follows waits for the next event.
func (it *item) postpone(w *writing, row *store.Repo, due time.Time) {
	it.outcome = outcomePostponed
	if row.Tracked != store.Untracked {
		w.wake = true // it may be due before anything else
		row.Attempt++
		row.State, row.Recheck = store.StateGone, row.Ordinal != 0
		row.Retry = store.Retry{Next: due.Unix(), Since: it.now.Unix(), Error: "the account came back too often"}
	}
	w.batch().PutRepo(row)
}

// jittered spreads what happens at one moment to many repositories over a tenth of d either way.
func jittered(did string, d time.Duration) time.Duration {
	share := float64(crc32.ChecksumIEEE([]byte(did))) / math.MaxUint32
	return time.Duration(float64(d) * (0.9 + 0.2*share))
}

// doHeavy handles the account event at the head of a parked lane. When it returns, that is durable and counted.
func (r *Runner) doHeavy(_ context.Context, l *lane) error {
	var it item
	it.take(l, l.head, r.opts.Now())
	w := writing{r: r}
	wait, err := r.decideHeavy(&it, &w)
	if err != nil {
		return err
	}
	r.tally.events[it.job][it.outcome].Inc()
	if wait == nil {
		return nil
	}
	return wait()
}

func (r *Runner) decideHeavy(it *item, w *writing) (wait func() error, err error) {
	defer r.store.Lock(it.lane.did)()
	row, err := r.store.RepoOrNew(it.lane.did)
	if err == nil {
		err = it.decideAccount(w, &row, true)
	}
	if err != nil {
		w.discard()
		return nil, err
	}
	return w.commit([]marks{{it.e.src, []int64{it.e.seq}}})
}
