package backfill

import (
	"cmp"
	"context"
	"errors"
	"time"

	"cistern/backfill/hosts"
	"cistern/store"
)

// fail classifies the error of a task, records it for the host, and writes the resulting state of
// the row.
func (t *task) fail(ctx context.Context, err error) (outcome, error) {
	now := t.r.opts.Now()
	v := t.attribute(classify(ctx, err, now))
	// Judge the host before the permit is released: no task must start at a host that just failed.
	t.r.dispatcher.judge(t.claim, v)
	t.r.dispatcher.release(t.claim, true)
	if v.ending == endRetry || v.ending == endFatal {
		t.path.Fail(resultOf(v), err)
	}
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
		case t.win.askedSince(row), v.ending == endGone && t.overtaken(row):
			row.Attempt++ // still pending: the host is asked again
		case v.ending == endGone && v.status == store.StatusNotFound, v.absent && row.Ordinal != 0:
			return t.notFound(b, row, v, err, now)
		case v.ending == endGone:
			t.doc.learn(b, row)
			row.Missing = 0
			t.hide(b, row, decideInactive(row, v.status), now)
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

// overtaken reports whether an account event arrived after the host was asked, or an identity event
// after the document was read. Then the answer may be outdated, or may come from the former host,
// where an account that has moved is deactivated.
func (t *task) overtaken(row *store.Repo) bool {
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

// attribute decides which host a failed lookup of a did:web is attributed to. If the store knows
// the host that should serve the document, the row goes to the queue of that host. Otherwise no
// host row is created, because a list of made-up names must not fill the table of hosts. The
// failure counts against a host only if the task holds a permit of that host.
func (t *task) attribute(v verdict) verdict {
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

// letGo ends a task whose row was changed by another caller. It returns the current row.
func (t *task) letGo(result string) (outcome, error) {
	if err := t.win.abandon(); err != nil {
		return outcome{}, err
	}
	row, err := t.r.store.Repo(t.it.did)
	if errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	if row.State != store.StatePending {
		row = store.Repo{} // the caller that changed the row wakes the loop that handles it
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
	delay := max(t.r.delayUpTo(count, v.delayMax(row, t.r.opts.RetryMax)), v.wait)
	row.Pending.Host = t.doc.hostOr(row)
	b.Defer(row, store.Retry{
		Kind:  v.kind,
		Count: count,
		Next:  now.Add(delay).Unix(),
		Since: cmp.Or(row.Retry.Since, now.Unix()),
		Error: err.Error(),
	})
}

// notFound counts an answer that the repository or the document does not exist (decideMissing).
func (t *task) notFound(b *store.Batch, row *store.Repo, v verdict, err error,
	now time.Time) error {
	if row.Missing == 0 {
		row.Retry.Since = now.Unix()
	}
	row.Missing++
	d := decideMissing(row, v.absent, now.Sub(time.Unix(row.Retry.Since, 0)))
	if !d.hidden {
		v.ending, v.kind = endRetry, store.Generic
		t.failed(b, row, v, err, now)
		return nil
	}
	t.doc.learn(b, row)
	if d.wiped {
		// One batch wipes the data and writes the account event. After a crash before it, the last
		// check is repeated.
		if err := b.Wipe(row); err != nil {
			return err
		}
	}
	t.hide(b, row, d, now)
	return nil
}

// hide hides an account, with the reason and the time of the next check. If the host answered, the
// source of the newest #account is forgotten, as in Show.
func (t *task) hide(b *store.Batch, row *store.Repo, d decision, now time.Time) {
	since := cmp.Or(row.Retry.Since, now.Unix())
	if row.Mark == store.MarkReturning {
		row.Mark = store.MarkNone
	}
	again := goneDelay(now.Sub(time.Unix(since, 0)))
	if row.Missing > 0 && row.Ordinal != 0 {
		again = goneRecheck // the next answers wipe the data, or find the repository
	}
	retry := store.Retry{Next: now.Add(t.r.jitter.Vary(again)).Unix(), Since: since, Error: d.text}
	if row.Tracked == store.Untracked {
		retry.Next = 0
	}
	if d.origin != store.OriginRelay {
		row.AccountSource = 0
	}
	row.Pending.Host = t.doc.hostOr(row)
	b.Hide(row, d.status, d.origin, retry)
}
