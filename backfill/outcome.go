package backfill

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cistern/store"
)

// fail writes what follows from the error of a task, and has the host judged by it.
func (t *task) fail(ctx context.Context, err error) (outcome, error) {
	now := t.r.opts.Now()
	v := t.blame(classify(ctx, err, now))
	// Before the permit is free: the next task is not to meet a host that has just failed.
	t.r.judge(t, v)
	t.r.release(t, true)
	switch v.ending {
	case endFatal:
		return outcome{}, errors.Join(err, t.abandon())
	case endStop:
		return outcome{}, t.abandon() // the row stays pending, and its next fetch starts a buffer of its own
	case endLater:
		return t.letGo("")
	case endStale:
		return t.letGo(resultStale)
	}
	row, werr := t.update(func(b *store.Batch, row *store.Repo) error {
		t.closeWindow()
		b.DropBuffer(row)
		switch {
		case t.askedSince(row), v.ending == endGone && t.toldSince(row):
			row.Attempt++ // still pending: the host is asked again
		case v.ending == endGone && v.status == store.StatusNotFound, v.absent && row.Ordinal != 0:
			return t.notFound(b, row, v, err, now)
		case v.ending == endGone:
			t.gone(b, row, v.status, now)
		default:
			t.failed(b, row, v, err, now)
		}
		return nil
	})
	if errors.Is(werr, store.ErrStale) {
		return t.letGo("")
	}
	if werr != nil {
		return outcome{}, werr
	}
	t.r.opts.Logger.Debug("backfill failed", "did", t.it.did, "host", t.ident.PDS, "err", err)
	return ended(row, resultOf(v)), nil
}

// toldSince says whether the firehose spoke of the account since its host was asked, or of its document since that was
// read. What the host answered may be of before, and it may be the former one: an account that moves is deactivated
// where it was.
func (t *task) toldSince(row *store.Repo) bool {
	return row.AccountTime != t.row.AccountTime || marksOf(row) != t.marks
}

// ignore takes a row out of the queue that nobody wants there.
func (t *task) ignore() (outcome, error) {
	wait, err := t.r.store.UpdateRepo(t.it.did, func(b *store.Batch, row *store.Repo) error {
		if row.State != store.StatePending || row.Tracked != store.Untracked {
			return nil // it has changed since
		}
		b.Untrack(row)
		b.PutRepo(row)
		return nil
	})
	if err == nil {
		err = wait()
	}
	return ended(store.Repo{}, ""), ours(err)
}

// blame puts a did:web whose document cannot be had into the queue of the host that should serve it, if that is known: who lists
// names that nobody serves is not to fill our table of hosts. Only there does it say something about the host whose permit was taken.
func (t *task) blame(v verdict) verdict {
	authority, ok := webAuthority(t.it.did)
	if !v.lookup || !ok {
		return v
	}
	h, err := t.r.store.HostNamed(authority)
	if err == nil {
		t.hostID = h.ID
	}
	if err != nil || t.permit == nil || t.permit.Host() != h.ID {
		v.fault, v.park = noFault, 0
	}
	return v
}

// letGo leaves a row to whoever changed it, and looks for it where it stands now.
func (t *task) letGo(result string) (outcome, error) {
	if err := t.abandon(); err != nil {
		return outcome{}, err
	}
	row, err := t.r.store.Repo(t.it.did)
	if errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	if row.State != store.StatePending {
		row = store.Repo{} // what it waits for is not for this task to say
	}
	return ended(row, result), ours(err)
}

// update changes the row under its lock, unless the attempt is no longer this task's (ErrStale).
// When it returns, the change is durable.
func (t *task) update(change func(b *store.Batch, row *store.Repo) error) (store.Repo, error) {
	row, wait, err := t.apply(change)
	if err == nil {
		err = ours(wait())
	}
	return row, err
}

func (t *task) apply(change func(b *store.Batch, row *store.Repo) error) (row store.Repo, wait func() error, err error) {
	wait, err = t.r.store.UpdateRepo(t.it.did, func(b *store.Batch, now *store.Repo) error {
		if !t.owns(now) {
			return store.ErrStale
		}
		err := change(b, now)
		if err == nil {
			b.PutRepo(now)
		}
		row = *now
		return err
	})
	return row, wait, ours(err)
}

// failed makes the row wait for its next attempt.
func (t *task) failed(b *store.Batch, row *store.Repo, v verdict, err error, now time.Time) {
	t.learn(b, row)
	count := row.Retry.Count
	if count+1 > count {
		count++
	}
	most := t.r.opts.RetryMax
	switch {
	case v.nobody && row.Ordinal == 0: // lists make up names for nothing, and each attempt asks a directory that all share
		most = max(most, goneRecheckMax)
	case v.refused:
		most = max(most, goneRecheck)
	}
	delay := max(t.r.delayUpTo(count, most), v.wait)
	row.Pending.Host = t.hostOr(row)
	b.Defer(row, store.Retry{
		Kind:  v.kind,
		Count: count,
		Next:  now.Add(delay).Unix(),
		Since: defaultTo(row.Retry.Since, now.Unix()),
		Error: err.Error(),
	})
}

// hostOr is the host that the document named, or the one of the row: if there was no document, or an identity event has
// brought another host since.
func (t *task) hostOr(row *store.Repo) uint32 {
	if marksOf(row) != t.marks && row.PDS != t.ident.PDS {
		return row.Pending.Host
	}
	return defaultTo(t.hostID, row.Pending.Host)
}

// gone notes that the account's host calls it inactive. What we hold is kept, and hidden by its status.
func (t *task) gone(b *store.Batch, row *store.Repo, status store.Status, now time.Time) {
	t.learn(b, row)
	row.Missing = 0
	if row.HiddenByRelay() && row.Status != status {
		t.hideAs(b, row, row.Status, store.OriginRelay, fmt.Sprintf("a relay says %s, its host %s", row.Status, status), now)
		return
	}
	t.hideAs(b, row, status, store.OriginHost, "its host says "+status.String(), now)
}

// notFound notes that the account's host does not know the repository, or that the DID has no document. That confirms a
// deletion that was told: the data is wiped. Otherwise it is a failure like others at first, then hides the account, and
// wipes what we hold when it was answered often and long enough. A commit that is newer than what we hold contradicts what
// hides the account: it is a failure like others at first then, too.
func (t *task) notFound(b *store.Batch, row *store.Repo, v verdict, err error, now time.Time) error {
	if row.Missing == 0 {
		row.Retry.Since = now.Unix()
	}
	row.Missing++
	age := now.Sub(time.Unix(row.Retry.Since, 0))
	contradicted := row.Status.Hidden() && row.SeenRev > row.Rev && row.Missing < missingMax
	if contradicted || !row.Status.Hidden() && (row.Missing < missingMax || row.Ordinal != 0 && age < hideSpan) {
		v.ending, v.kind = endRetry, store.Generic
		t.failed(b, row, v, err, now)
		return nil
	}
	t.learn(b, row)
	origin, text := store.OriginHost, "its host does not know the repository"
	if v.absent {
		origin, text = store.OriginDirectory, "the DID has no document"
	}
	status := store.StatusNotFound
	switch {
	case row.Unconfirmed(), row.Ordinal != 0 && row.Missing >= missingMax && age >= missingSpan:
		// Data and account event go together; a crash before this batch repeats the last check.
		if err := b.Wipe(row); err != nil {
			return err
		}
		status = store.StatusDeleted
	case row.Status == store.StatusDeleted, row.HiddenByRelay(), row.Status.Hidden() && (row.Missing < missingMax || age < hideSpan):
		status = row.Status // it is hidden already, and this says nothing else yet
		if row.HiddenByRelay() {
			origin = store.OriginRelay
		}
	}
	t.hideAs(b, row, status, origin, text, now)
	return nil
}

// hideAs leaves the row of an account that is not active, with the reason and the time of the next look.
func (t *task) hideAs(b *store.Batch, row *store.Repo, status store.Status, origin store.Origin, text string, now time.Time) {
	since := defaultTo(row.Retry.Since, now.Unix())
	if row.Mark == store.MarkReturning {
		row.Mark = store.MarkNone
	}
	again := goneDelay(now.Sub(time.Unix(since, 0)))
	if row.Missing > 0 && row.Ordinal != 0 {
		again = goneRecheck // to be wiped soon, or found again
	}
	retry := store.Retry{Next: now.Add(t.r.jitter(again)).Unix(), Since: since, Error: text}
	if row.Tracked == store.Untracked {
		retry.Next = 0
	}
	row.Pending.Host = t.hostOr(row)
	b.Hide(row, status, origin, retry)
}

// goneDelay is how long an account that has been gone for some time is left alone: as long again, from a day to weeks. The
// firehose and the lists of its host tell at once when it comes back.
func goneDelay(gone time.Duration) time.Duration {
	return min(max(gone, goneRecheck), goneRecheckMax)
}
