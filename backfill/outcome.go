package backfill

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"cistern/backfill/hosts"
	"cistern/store"
)

// fail classifies the error of a task, records it for the host, and writes the resulting state of
// the row.
func (t *task) fail(ctx context.Context, err error) (outcome, error) {
	now := t.r.opts.Now()
	v := t.blame(classify(ctx, err, now))
	// Before the permit is released: the next task must not start at a host that has just failed.
	t.r.dispatcher.judge(t.claim, v)
	t.r.dispatcher.release(t.claim, true)
	switch v.ending {
	case endFatal:
		return outcome{}, errors.Join(err, t.win.abandon())
	case endStop:
		return outcome{}, t.win.abandon() // the row stays pending, and its next fetch starts a new buffer
	case endLater:
		return t.letGo("")
	case endStale:
		return t.letGo(resultStale)
	}
	row, werr := t.win.update(func(b *store.Batch, row *store.Repo) error {
		t.win.close()
		b.DropBuffer(row)
		switch {
		case t.win.askedSince(row), v.ending == endGone && t.toldSince(row):
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
	t.r.opts.Logger.Debug("backfill failed", "did", t.it.did, "host", t.doc.ident.PDS, "err", err)
	return ended(row, resultOf(v)), nil
}

// toldSince reports whether the firehose brought an account event after the host was asked, or an
// identity event after the document was read. The answer may then be outdated, or that of the
// former host: an account that moves is deactivated at its former host.
func (t *task) toldSince(row *store.Repo) bool {
	return row.AccountTime != t.win.row.AccountTime || marksOf(row) != t.doc.marks
}

// ignore removes the row of an untracked repository from the queue.
func (t *task) ignore() (outcome, error) {
	wait, err := t.r.store.UpdateRepo(t.it.did, func(b *store.Batch, row *store.Repo) error {
		if row.State != store.StatePending || row.Tracked != store.Untracked {
			return nil // changed since it was picked
		}
		b.Untrack(row)
		b.PutRepo(row)
		return nil
	})
	if err == nil {
		err = wait()
	}
	return ended(store.Repo{}, ""), hosts.OfStore(err)
}

// blame decides which queue receives a did:web whose document is unavailable. If the host that
// should serve the document is known, it is the queue of that host; otherwise no host row is
// created, because a list of made-up names must not fill the table of hosts. The failure counts
// against a host only if the task holds a permit of that host.
func (t *task) blame(v verdict) verdict {
	authority, ok := webAuthority(t.it.did)
	if !v.lookup || !ok {
		return v
	}
	h, err := t.r.store.HostNamed(authority)
	if err == nil {
		t.doc.hostID = h.ID
	}
	if err != nil || t.permit == nil || t.permit.Host() != h.ID {
		v.fault, v.park = noFault, 0
	}
	return v
}

// letGo ends a task whose row was changed by another caller, and returns the row as it is now.
func (t *task) letGo(result string) (outcome, error) {
	if err := t.win.abandon(); err != nil {
		return outcome{}, err
	}
	row, err := t.r.store.Repo(t.it.did)
	if errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	if row.State != store.StatePending {
		row = store.Repo{} // the caller that changed it signals what it waits for
	}
	return ended(row, result), hosts.OfStore(err)
}

// failed schedules the next attempt of a repository.
func (t *task) failed(b *store.Batch, row *store.Repo, v verdict, err error, now time.Time) {
	t.doc.learn(b, row)
	count := row.Retry.Count
	if count+1 > count {
		count++
	}
	most := t.r.opts.RetryMax
	switch {
	case v.noHost && row.Ordinal == 0:
		// Lists can invent names at no cost, and each attempt asks the shared directory.
		most = max(most, goneRecheckMax)
	case v.refused:
		most = max(most, goneRecheck)
	}
	delay := max(t.r.delayUpTo(count, most), v.wait)
	row.Pending.Host = t.doc.hostOr(row)
	b.Defer(row, store.Retry{
		Kind:  v.kind,
		Count: count,
		Next:  now.Add(delay).Unix(),
		Since: cmp.Or(row.Retry.Since, now.Unix()),
		Error: err.Error(),
	})
}

// gone records that the account's host reports it as inactive. The stored data is kept, and hidden
// by the status.
func (t *task) gone(b *store.Batch, row *store.Repo, status store.Status, now time.Time) {
	t.doc.learn(b, row)
	row.Missing = 0
	if row.HiddenByRelay() && row.Status != status {
		t.hideAs(b, row, row.Status, store.OriginRelay, fmt.Sprintf("a relay reports %s, the account's host %s", row.Status, status), now)
		return
	}
	t.hideAs(b, row, status, store.OriginHost, "the account's host reports "+status.String(), now)
}

// notFound records that the account's host does not have the repository, or that the DID has no
// document. If a deletion was announced, this confirms it, and the data is wiped. Otherwise the
// first answers count as failures, later ones hide the account, and its data is wiped once there
// were enough answers over a long enough time. A commit that is newer than the copy contradicts the
// status of a hidden account: the first answers count as failures then, too.
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
	t.doc.learn(b, row)
	origin, text := store.OriginHost, "the account's host does not have the repository"
	if v.absent {
		origin, text = store.OriginDirectory, "the DID has no document"
	}
	status := store.StatusNotFound
	switch {
	case row.Unconfirmed(), row.Ordinal != 0 && row.Missing >= missingMax && age >= missingSpan:
		// The data and the account event are in one batch; a crash before it repeats the last
		// check.
		if err := b.Wipe(row); err != nil {
			return err
		}
		status = store.StatusDeleted
	case row.Status == store.StatusDeleted, row.HiddenByRelay(), row.Status.Hidden() && (row.Missing < missingMax || age < hideSpan):
		status = row.Status // already hidden, and the answers do not justify another status yet
		if row.HiddenByRelay() {
			origin = store.OriginRelay
		}
	}
	t.hideAs(b, row, status, origin, text, now)
	return nil
}

// hideAs hides an account, with the reason and the time of the next check. If the host answered,
// the time of the newest #account is forgotten, as in Show.
func (t *task) hideAs(b *store.Batch, row *store.Repo, status store.Status, origin store.Origin, text string, now time.Time) {
	since := cmp.Or(row.Retry.Since, now.Unix())
	if row.Mark == store.MarkReturning {
		row.Mark = store.MarkNone
	}
	again := goneDelay(now.Sub(time.Unix(since, 0)))
	if row.Missing > 0 && row.Ordinal != 0 {
		again = goneRecheck // the next answers wipe the data, or find the repository again
	}
	retry := store.Retry{Next: now.Add(t.r.jitter.Vary(again)).Unix(), Since: since, Error: text}
	if row.Tracked == store.Untracked {
		retry.Next = 0
	}
	if origin != store.OriginRelay {
		row.AccountTime = 0
	}
	row.Pending.Host = t.doc.hostOr(row)
	b.Hide(row, status, origin, retry)
}

// goneDelay returns how long to wait before the host of an account is asked again that has been
// gone for some time: as long again, from a day to four weeks. The firehose and the lists of the
// host report an account that returns without this delay.
func goneDelay(gone time.Duration) time.Duration {
	return min(max(gone, goneRecheck), goneRecheckMax)
}
