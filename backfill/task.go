package backfill

import (
	"context"
	"errors"
	"net/http"
	"time"

	"cistern/backfill/fetch"
	"cistern/backfill/hosts"
	"cistern/backfill/refilter"
	"cistern/ingest/identity"
	"cistern/ingest/repo"
	"cistern/loop"
	"cistern/store"
	"cistern/trace"
)

// task makes one copy of one repository.
type task struct {
	r *Runner
	*claim
	doc  document
	win  window
	ask  inquiry
	land landing
	path trace.Path // from the queue to the flip

	// passed means that run must not end the task: the repository waits for a permit, or the store
	// imports it and calls imported.
	passed bool
}

func newTask(r *Runner, c *claim) *task {
	t := &task{r: r, claim: c}
	t.doc = document{directory: r.opts.Directory, did: c.it.did, now: r.opts.Now}
	t.win = window{store: r.store, did: c.it.did}
	t.ask = inquiry{copier: r.copier, claim: c, doc: &t.doc, win: &t.win}
	t.land = landing{
		win: &t.win, doc: &t.doc,
		unsigned: r.opts.SkipSignatures, now: r.opts.Now, delay: r.delay,
	}
	return t
}

// outcome is the result of a task. A step that returns the zero outcome has not ended the task.
type outcome struct {
	result string     // of the metric; "" if the task ended without one
	row    store.Repo // the row now; without a DID if it was deleted
	ended  bool
}

// ended returns the outcome of a task that leaves a row.
func ended(row store.Repo, result string) outcome { return outcome{result, row, true} }

// run executes the task and ends it, unless the task was passed on.
func (t *task) run(ctx context.Context) error {
	defer t.unwind()
	t.path = t.r.opts.Tracer.Begin("fetch", time.Time{})
	t.path.Text("did", t.it.did)
	t.path.Step("resolve")
	out, err := t.work(ctx)
	if err != nil && !t.passed {
		out, err = t.fail(ctx, err)
	}
	t.r.dispatcher.release(t.claim, true)
	if !t.passed {
		t.end(out)
	}
	return loop.Quiet(ctx, err)
}

// end removes the DID from the DIDs in flight, and wakes the loop that the row's new state waits
// for. The row is durable.
func (t *task) end(out outcome) {
	t.endTrace(out)
	if out.result != "" {
		t.r.metrics.tasks.WithLabelValues(out.result).Inc()
	}
	t.r.dispatcher.end(t.claim)
	switch row := &out.row; {
	case row.State == store.StatePending:
		t.r.dispatcher.note(row.Pending.Host)
	case row.Retry.Next != 0:
		t.r.retries.due(row.Retry.Next)
	case row.State == store.StateDraining:
		t.r.opts.Drain(t.it.did)
	}
}

// endTrace ends the trace of a task that has an outcome.
func (t *task) endTrace(out outcome) {
	if !t.path.On() {
		return
	}
	t.path.Text("result", out.result)
	t.path.Text("host", t.doc.ident.PDS)
	t.path.Text("rev", out.row.Rev)
	t.path.Number("records", out.row.Records)
	t.path.End()
}

// unwind closes the window after a panic; every other path has closed it.
func (t *task) unwind() {
	if !t.passed && t.win.fetching {
		defer t.r.store.Lock(t.it.did)()
		t.win.close()
	}
}

// work runs the steps of the task until one ends it.
func (t *task) work(ctx context.Context) (outcome, error) {
	row, err := t.r.store.Repo(t.it.did)
	if errors.Is(err, store.ErrNotFound) {
		return outcome{}, store.ErrStale
	}
	if err != nil {
		return outcome{}, hosts.OfStore(err)
	}
	if row.State != store.StatePending || row.Pending != t.it.key {
		return outcome{}, store.ErrStale
	}
	t.win.row = row
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

// seekHost resolves a repository whose host is unknown, and acquires a permit of its host. The
// document of a did:web is served by a host too, which may be slow, so this lookup needs a permit
// of that host.
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
	return t.place(identity.HostOf(t.doc.ident.PDS))
}

// checkHost resolves a repository from a host's queue, and follows it if it has moved to another
// host.
func (t *task) checkHost(ctx context.Context) (outcome, error) {
	if err := t.identify(ctx); err != nil {
		return outcome{}, err
	}
	id, err := t.r.hosts.HostID(identity.HostOf(t.doc.ident.PDS))
	if err != nil {
		return outcome{}, err
	}
	t.doc.hostID = id
	if id != t.permit.Host() {
		return t.follow()
	}
	return outcome{}, nil
}

// follow acquires a permit of the host that the document names now. The document is not read again
// before that host was asked. Otherwise a document that names another host on each read would move
// the repository for ever.
func (t *task) follow() (outcome, error) {
	t.r.dispatcher.release(t.claim, true)
	return t.place(identity.HostOf(t.doc.ident.PDS))
}

// copy fetches, verifies and stores the repository. If the identity came from a cache, the document
// is read again before a failure counts against the host.
func (t *task) copy(ctx context.Context) (outcome, error) {
	out, err := t.attempt(ctx)
	if t.doc.fresh || out.ended || t.passed || !mayBeOutdated(err) {
		return out, err
	}
	old := t.doc.ident
	if err := t.refresh(ctx); err != nil {
		return outcome{}, err
	}
	if t.doc.ident.PDS != old.PDS {
		if err := t.win.abandon(); err != nil {
			return outcome{}, err
		}
		id, err := t.r.hosts.HostID(identity.HostOf(t.doc.ident.PDS))
		if err != nil {
			return outcome{}, err
		}
		t.doc.hostID = id
		if id != t.permit.Host() {
			if out, err := t.follow(); err != nil || out.ended || t.passed {
				return out, err
			}
		}
	} else if t.doc.ident.Key == old.Key && !fetch.MayBeFormer(t.it.did, err) {
		return outcome{}, err
	}
	out, again := t.attempt(ctx)
	if errors.Is(err, repo.ErrSignature) && errors.As(again, new(*hosts.BusyError)) {
		return outcome{}, err // a failure: the next attempt reads the document first
	}
	return out, again
}

// mayBeOutdated reports whether an outdated host or key may have caused err.
func mayBeOutdated(err error) bool {
	var answer *hosts.AnswerError
	return errors.Is(err, repo.ErrSignature) ||
		errors.As(err, &answer) && answer.Code < 500 && answer.Code != http.StatusTooManyRequests
}

// fetchWholeNext makes the next attempt fetch the whole repository without queries if the host did
// not accept the queries of this attempt. A permit allows one request, and it may be minutes until
// the host accepts a second.
func (t *task) fetchWholeNext(err error) error {
	if !errors.As(err, new(*hosts.BusyError)) {
		return nil
	}
	t.r.copier.FetchWhole(t.it.did)
	if !t.win.row.Recheck {
		return nil
	}
	_, err = t.win.update(func(_ *store.Batch, row *store.Repo) error {
		row.Recheck = false
		return nil
	})
	return err
}

// write stores a verified copy: all of it, or the changes. If the repository is followed for a
// signal and the copy has none, nothing is stored, and the repository is forgotten.
func (t *task) write(ctx context.Context, c *fetch.Copy) (outcome, error) {
	t.path.Step("write")
	if !t.land.signal && refilter.OnSignal(t.win.filter.Filter, &t.win.row) {
		if t.win.row.Ordinal == 0 {
			t.r.signalMisses.add(t.it.did, t.r.opts.Now(), t.r.delay)
		}
		return t.forget(ctx)
	}
	if t.win.row.Ordinal != 0 {
		row, err := t.land.diff(ctx, c)
		if err != nil {
			return outcome{}, err
		}
		return t.done(row), nil
	}
	// From here on Done ends the task, perhaps in another goroutine and before Import returns.
	t.passed = true
	err := t.r.store.Import(ctx, store.Import{
		DID:     t.it.did,
		Attempt: t.win.row.Attempt,
		Rev:     t.land.commit.Rev,
		Filter:  t.win.filter.Selection,
		Blocks:  c.Blocks(),
		Walk: func(fn func(repo.Leaf) error) error {
			defer t.path.Step("group") // it waits for the other members of its group
			return c.Walk(fn)
		},
		Complete: func(b *store.Batch, row *store.Repo) {
			t.path.Step("flip")
			t.land.complete(b, row)
		},
		Done: func(row store.Repo, err error) { t.imported(ctx, row, err) },
	})
	return outcome{}, hosts.OfStore(err)
}

// imported ends the task of a first copy. The store calls it, so it must not block. If the task
// still holds permits, run releases them.
func (t *task) imported(ctx context.Context, row store.Repo, err error) {
	if err == nil {
		t.end(t.done(row))
		return
	}
	aerr := t.win.abandon()
	if !errors.Is(err, store.ErrStale) {
		t.end(outcome{})
		if ctx.Err() == nil {
			t.r.dispatcher.stop(hosts.OfStore(errors.Join(err, aerr)))
		}
		return
	}
	t.end(outcome{result: resultStale})
	t.r.Wake()
	if aerr != nil && ctx.Err() == nil {
		t.r.dispatcher.stop(aerr)
	}
}

// done returns the outcome of a task whose copy is complete and durable.
func (t *task) done(row store.Repo) outcome {
	if t.land.forgot != "" {
		t.r.opts.Logger.Debug("dropped an announced rev that the host does not have",
			"did", t.it.did, "rev", row.Rev, "seen", t.land.forgot)
	}
	return ended(row, resultSynced)
}
