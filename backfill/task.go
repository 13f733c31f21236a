package backfill

import (
	"context"
	"errors"
	"net/http"
	"time"

	"cistern/backfill/fetch"
	"cistern/backfill/hosts"
	"cistern/backfill/pace"
	"cistern/backfill/refilter"
	"cistern/ingest/identity"
	"cistern/ingest/repo"
	"cistern/store"
)

// task makes one copy of one repository.
type task struct {
	r      *Runner
	it     item
	holder *queue        // counts it as claimed
	hostID uint32        // of the host that the document names, 0 before it is read
	permit *hosts.Permit // nil while the host is unknown

	lookPermit pace.Permit // of lookups, as the task began
	looking    bool        // counts as a lookup; Runner.mu guards

	passed bool // something else ends the task: the room of a host, or the import of the store

	filter   store.FilterVersion // as the fetch began: by it the attempt chooses records
	signal   bool                // the copy has a record in a collection that a signal names
	row      store.Repo          // as the task began; from openWindow on, as the fetch began
	fetching bool                // live commits are buffered: between openWindow and closeWindow
	ident    identity.Identity
	fresh    bool          // ident was asked for now, not remembered
	looked   time.Time     // when ident was asked for, zero if that is not known
	marks    identityMarks // of the row, before ident was asked for
	commit   repo.Commit
	block    []byte // the signed commit
	former   bool   // its signature is of a key that the document no longer names
	stated   string // the rev that the host names for the commit we hold, "" if it was not asked
	forgot   string // the rev that was seen and is looked for no more
}

// outcome is what a task has done. The zero outcome is that of a step after which the task goes on.
type outcome struct {
	result string     // of the metric; "" if the task ended without one
	row    store.Repo // as it is now, without a DID if there is none any more
	ended  bool
}

// ended returns the outcome of a task that leaves a row.
func ended(row store.Repo, result string) outcome { return outcome{result, row, true} }

// run does the task. Whatever its outcome, it ends here, unless the task was passed on.
func (t *task) run(ctx context.Context) error {
	defer t.unwind()
	out, err := t.work(ctx)
	if err != nil && !t.passed {
		out, err = t.fail(ctx, err)
	}
	t.r.release(t, true)
	if !t.passed {
		t.end(out)
	}
	return quiet(ctx, err)
}

// end takes the DID out of flight, and has what the row waits for be done. The row is durable.
func (t *task) end(out outcome) {
	if out.result != "" {
		t.r.metrics.tasks.WithLabelValues(out.result).Inc()
	}
	t.r.mu.Lock()
	t.r.land(t.it.did)
	if t.holder != nil {
		t.r.unclaim(t.holder)
	}
	t.r.mu.Unlock()
	signal(t.r.kick)
	switch row := &out.row; {
	case row.State == store.StatePending:
		t.r.note(row.Pending.Host)
	case row.Retry.Next != 0:
		t.r.due(row.Retry.Next)
	case row.State == store.StateDraining:
		t.r.opts.Drain(t.it.did)
	}
}

// unwind closes the window behind a panic; every other path has done so.
func (t *task) unwind() {
	if !t.passed && t.fetching {
		defer t.r.store.Lock(t.it.did)()
		t.closeWindow()
	}
}

// work goes as far as it can.
func (t *task) work(ctx context.Context) (outcome, error) {
	row, err := t.r.store.Repo(t.it.did)
	if errors.Is(err, store.ErrNotFound) {
		return outcome{}, store.ErrStale
	}
	if err != nil {
		return outcome{}, ours(err)
	}
	if row.State != store.StatePending || row.Pending != t.it.key {
		return outcome{}, store.ErrStale
	}
	t.row = row
	if row.Tracked == store.Untracked && !row.Unconfirmed() {
		return t.ignore()
	}
	if t.r.store.Filter().Excluded(row.DID) {
		return t.forget(ctx)
	}
	if due, soon := t.tooSoon(); soon {
		return t.postpone(due)
	}
	var out outcome
	if t.permit == nil {
		out, err = t.seekHost(ctx)
	} else {
		out, err = t.checkHost(ctx)
	}
	if err != nil || out.ended || t.passed {
		return out, err
	}
	return t.copy(ctx)
}

// seekHost resolves a repository of unknown host and finds it a seat there. The document of a
// did:web is up to some host too, which may be slow: it waits its turn there.
func (t *task) seekHost(ctx context.Context) (outcome, error) {
	if authority, ok := webAuthority(t.it.did); ok {
		out, err := t.place(authority)
		if err != nil || out.ended || t.passed {
			return out, err
		}
		return t.checkHost(ctx)
	}
	if err := t.refresh(ctx); err != nil {
		return outcome{}, err
	}
	return t.place(identity.HostOf(t.ident.PDS))
}

// checkHost resolves a repository from a host's queue, and goes on elsewhere when it lives there now.
func (t *task) checkHost(ctx context.Context) (outcome, error) {
	if err := t.identify(ctx); err != nil {
		return outcome{}, err
	}
	id, err := t.r.hostID(identity.HostOf(t.ident.PDS))
	if err != nil {
		return outcome{}, err
	}
	t.hostID = id
	if id != t.permit.Host() {
		return t.follow()
	}
	return outcome{}, nil
}

// follow finds a seat at the host that the document names now. The document is not read again
// before that host was asked, else one that names another host each time would keep us moving.
func (t *task) follow() (outcome, error) {
	t.r.release(t, true)
	return t.place(identity.HostOf(t.ident.PDS))
}

// copy fetches, verifies and stores. A document that was only remembered is read again before
// what it said is held against the host.
func (t *task) copy(ctx context.Context) (outcome, error) {
	out, err := t.attempt(ctx)
	if t.fresh || out.ended || t.passed || !mayBeOutdated(err) {
		return out, err
	}
	old := t.ident
	if err := t.refresh(ctx); err != nil {
		return outcome{}, err
	}
	if t.ident.PDS != old.PDS {
		if err := t.abandon(); err != nil {
			return outcome{}, err
		}
		id, err := t.r.hostID(identity.HostOf(t.ident.PDS))
		if err != nil {
			return outcome{}, err
		}
		t.hostID = id
		if id != t.permit.Host() {
			if out, err := t.follow(); err != nil || out.ended || t.passed {
				return out, err
			}
		}
	} else if t.ident.Key == old.Key && !fetch.MayBeFormer(t.it.did, err) {
		return outcome{}, err
	}
	out, again := t.attempt(ctx)
	if errors.Is(err, repo.ErrSignature) && errors.As(again, new(*hosts.BusyError)) {
		return outcome{}, err // it counts, and so the next attempt begins with the document
	}
	return out, again
}

// mayBeOutdated says whether err may come from an old idea of host or key.
func mayBeOutdated(err error) bool {
	var answer *hosts.AnswerError
	return errors.Is(err, repo.ErrSignature) || errors.As(err, &answer) && answer.Code < 500 && answer.Code != http.StatusTooManyRequests
}

func (t *task) attempt(ctx context.Context) (outcome, error) {
	if err := t.openWindow(); err != nil {
		return outcome{}, err
	}
	if t.row.HiddenByRelay() || t.row.Tracked == store.Untracked {
		return t.confirm(ctx)
	}
	if t.row.Recheck && t.enough() {
		if out, err := t.recheck(ctx); out.ended || err != nil {
			return out, err
		}
	}
	over, err := t.passedOver(ctx)
	if err != nil {
		return outcome{}, err
	}
	if over {
		t.r.judge(t, verdict{spoke: true})
		t.r.release(t, true)
		return t.forget(ctx)
	}
	c, err := t.fetch(ctx)
	if err != nil {
		return outcome{}, errors.Join(err, t.straighten(err))
	}
	// The host has done its part.
	t.permit.Fetched()
	t.r.judge(t, verdict{spoke: true})
	t.r.release(t, false)
	out, err := t.write(ctx, c)
	if cerr := c.Close(); err == nil && !out.ended && !t.passed {
		err = cerr
	}
	return out, err
}

// straighten has the next attempt ask for nothing but the whole when the host did not take the questions of this one: with a
// permit comes one request, and it may be minutes until the host takes another.
func (t *task) straighten(err error) error {
	if !errors.As(err, new(*hosts.BusyError)) {
		return nil
	}
	t.r.copier.FetchWhole(t.it.did)
	if !t.row.Recheck {
		return nil
	}
	_, err = t.update(func(_ *store.Batch, row *store.Repo) error {
		row.Recheck = false
		return nil
	})
	return err
}

// write stores a verified copy: whole, or what has changed. One that nobody follows is not stored, and forgotten.
func (t *task) write(ctx context.Context, c *fetch.Copy) (outcome, error) {
	if !t.signal && refilter.OnSignal(t.filter.Filter, &t.row) {
		if t.row.Ordinal == 0 {
			t.r.signalMisses.add(t.it.did, t.r.opts.Now(), t.r.delay)
		}
		return t.forget(ctx)
	}
	if t.row.Ordinal != 0 {
		return t.diff(ctx, c)
	}
	// From here on Done ends the task, perhaps on another goroutine and before Import returns.
	t.passed = true
	err := t.r.store.Import(ctx, store.Import{
		DID:      t.it.did,
		Attempt:  t.row.Attempt,
		Rev:      t.commit.Rev,
		Filter:   t.filter.Selection,
		Blocks:   c.Blocks(),
		Walk:     c.Walk,
		Complete: func(b *store.Batch, row *store.Repo) { t.complete(b, row) },
		Done:     func(row store.Repo, err error) { t.imported(ctx, row, err) },
	})
	return outcome{}, ours(err)
}

// imported ends the task of a first copy. Called by the store, which must not wait for us. The task
// may still hold permits, which it gives back itself.
func (t *task) imported(ctx context.Context, row store.Repo, err error) {
	if err == nil {
		t.end(t.done(row))
		return
	}
	aerr := t.abandon()
	if !errors.Is(err, store.ErrStale) {
		t.end(outcome{})
		if ctx.Err() == nil {
			t.r.stop(ours(errors.Join(err, aerr)))
		}
		return
	}
	t.end(outcome{result: resultStale})
	t.r.Wake()
	if aerr != nil && ctx.Err() == nil {
		t.r.stop(aerr)
	}
}
