package backfill

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"

	"cistern/ingest/identity"
	"cistern/ingest/repo"
	"cistern/store"
)

// task makes one copy of one repository.
type task struct {
	r      *Runner
	it     item
	host   *host  // whose permit it took; nil while the host is unknown
	holder *host  // counts it as claimed
	hostID uint32 // of the host that the document names, 0 before it is read
	epoch  uint64 // of host, when the permit was taken

	lookEpoch uint64 // of lookups, as the task began

	// Runner.mu guards:
	global   bool // holds a global permit
	local    bool // holds a permit of host
	looking  bool // counts as a lookup
	stranger bool // its global permit is one of those for hosts not proven

	left   bool  // the DID is out of flight, or no longer this task's to say
	memory int64 // of the body, taken from Runner.memory
	index  int64 // taken from Runner.indexes

	row    store.Repo // as the task began
	ident  identity.Identity
	fresh  bool // ident was asked for now, not remembered
	commit repo.Commit
	block  []byte // the signed commit
}

// run does the task and everything that follows from how it ended.
func (t *task) run(ctx context.Context) error {
	err := t.work(ctx)
	if t.left {
		return quiet(ctx, err)
	}
	return t.end(ctx, err)
}

// work goes as far as it can. With nil, t.left says that others see to the rest.
func (t *task) work(ctx context.Context) error {
	row, err := t.r.store.Repo(t.it.did)
	if errors.Is(err, store.ErrNotFound) {
		return store.ErrStale
	}
	if err != nil {
		return ours(err)
	}
	if row.State != store.StatePending || row.Pending != t.it.key {
		return store.ErrStale
	}
	t.row = row
	if row.Tracked == store.Untracked {
		return t.ignore()
	}
	if t.host == nil {
		err = t.seekHost(ctx)
	} else {
		err = t.checkHost(ctx)
	}
	if err != nil || t.left {
		return err
	}
	return t.copy(ctx)
}

// seekHost resolves a repository of unknown host and finds it a seat there. The document of a
// did:web is up to some host too, which may be slow: it waits its turn there.
func (t *task) seekHost(ctx context.Context) error {
	if authority, ok := webAuthority(t.it.did); ok {
		run, err := t.place(authority)
		if err != nil || !run {
			return err
		}
		return t.checkHost(ctx)
	}
	if err := t.refresh(ctx); err != nil {
		return err
	}
	_, err := t.place(hostOfURL(t.ident.PDS))
	return err
}

// checkHost resolves a repository from a host's queue, and goes on elsewhere when it lives there now.
func (t *task) checkHost(ctx context.Context) error {
	if err := t.identify(ctx); err != nil {
		return err
	}
	id, err := t.r.hostID(hostOfURL(t.ident.PDS))
	if err != nil {
		return err
	}
	t.hostID = id
	if id != t.host.id {
		return t.follow()
	}
	return nil
}

// follow finds a seat at the host that the document names now. The document is not read again
// before that host was asked, else one that names another host each time would keep us moving.
func (t *task) follow() error {
	t.r.release(t, true)
	_, err := t.place(hostOfURL(t.ident.PDS))
	return err
}

// copy fetches, verifies and stores. A document that was only remembered is read again before
// what it said is held against the host.
func (t *task) copy(ctx context.Context) error {
	err := t.attempt(ctx)
	if t.fresh || t.left || !mayBeOutdated(err) {
		return err
	}
	old := t.ident
	if err := t.refresh(ctx); err != nil {
		return err
	}
	if t.ident.PDS != old.PDS {
		id, err := t.r.hostID(hostOfURL(t.ident.PDS))
		if err != nil {
			return err
		}
		t.hostID = id
		if id != t.host.id {
			if err := t.follow(); err != nil || t.left {
				return err
			}
		}
	} else if t.ident.Key == old.Key {
		return err
	}
	return t.attempt(ctx)
}

// mayBeOutdated says whether err may come from an old idea of host or key.
func mayBeOutdated(err error) bool {
	var answer *answerError
	return errors.Is(err, repo.ErrSignature) || errors.As(err, &answer) && answer.code < 500 && answer.code != http.StatusTooManyRequests
}

func (t *task) attempt(ctx context.Context) error {
	car, err := t.fetch(ctx)
	if err != nil {
		t.forgetMemory()
		return err
	}
	err = t.verify(car)
	if err == nil {
		// The host has done its part.
		t.r.judge(t, verdict{spoke: true})
		t.r.release(t, false)
		err = t.write(ctx, car)
	}
	if cerr := car.Close(); err == nil && cerr != nil && !t.left {
		err = fmt.Errorf("%w: %w", errSpool, cerr)
	}
	t.forgetMemory()
	if t.left {
		t.r.release(t, true)
	}
	return err
}

// verify checks everything about a CAR that can be checked without writing.
func (t *task) verify(car *repo.CAR) error {
	block, ok, err := car.Block(car.Root())
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("the commit %s is not in the CAR: %w", car.Root(), repo.ErrInvalid)
	}
	t.block = append([]byte(nil), block...)
	if t.commit, err = repo.ParseCommit(t.block); err != nil {
		return err
	}
	c := t.commit
	switch {
	case c.DID != t.it.did:
		return fmt.Errorf("the commit is of %.64s: %w", c.DID, repo.ErrInvalid)
	case c.Version != 3:
		return fmt.Errorf("the commit is of version %d: %w", c.Version, repo.ErrInvalid)
	case c.Rev < t.row.Rev:
		return fmt.Errorf("rev %s is older than %s, which we hold: %w", c.Rev, t.row.Rev, repo.ErrInvalid)
	}
	if err := c.CheckRev(t.r.opts.Now()); err != nil {
		return err
	}
	if t.r.opts.Verify != VerifyNone {
		if err := c.Verify(t.block, t.ident.PublicKey); err != nil {
			return err
		}
	}
	return walkAll(car, c.Data)
}

// walkAll checks the tree, and that its records, each counted as often as it is named, are not out
// of proportion to what was sent: readers are sent them so often, and a difference stores them so.
func walkAll(car *repo.CAR, data repo.CID) error {
	limit := expandSlack + shareRatio*car.Bytes()
	size, hidden, collections := int64(0), 0, 0
	collection := []byte(nil) // of the record before, with its slash
	return car.Walk(data, func(l repo.Leaf) error {
		if size += int64(len(l.Record)); size > limit {
			return fmt.Errorf("the records make more than %d bytes, shared blocks counted each time: %w", limit, repo.ErrInvalid)
		}
		if !l.Valid {
			if hidden++; hidden > hiddenMax {
				return fmt.Errorf("more than %d keys are no collection and record key: %w", hiddenMax, repo.ErrInvalid)
			}
			return nil
		}
		if len(collection) > 0 && bytes.HasPrefix(l.Key, collection) {
			return nil
		}
		collection = append(collection[:0], l.Key[:bytes.IndexByte(l.Key, '/')+1]...)
		if collections++; collections > collectionsMax {
			return fmt.Errorf("more than %d collections: %w", collectionsMax, repo.ErrInvalid)
		}
		return nil
	})
}

// write stores a verified copy: whole, or what has changed.
func (t *task) write(ctx context.Context, car *repo.CAR) error {
	if t.row.Ordinal != 0 {
		return t.diff(ctx, car)
	}
	// From here on Done ends the task, perhaps on another goroutine and before Import returns.
	t.left = true
	err := t.r.store.Import(ctx, store.Import{
		DID:      t.it.did,
		Attempt:  t.row.Attempt,
		Rev:      t.commit.Rev,
		Blocks:   car.Blocks(),
		Walk:     func(fn func(repo.Leaf) error) error { return car.Walk(t.commit.Data, fn) },
		Complete: func(b *store.Batch, row *store.Repo) { t.complete(b, row) },
		Done:     func(row store.Repo, err error) { t.imported(ctx, row, err) },
	})
	return ours(err)
}

// imported ends the task of a first copy. Called by the store, which must not wait for us.
func (t *task) imported(ctx context.Context, row store.Repo, err error) {
	switch {
	case err == nil:
		t.done(row)
	case errors.Is(err, store.ErrStale):
		t.r.metrics.tasks.WithLabelValues(resultStale).Inc()
		t.depart()
		t.r.Wake()
	default:
		t.depart()
		if ctx.Err() == nil {
			t.r.stop(ours(err))
		}
	}
}

// depart takes the DID out of flight while the task may still hold permits, which it gives back itself.
func (t *task) depart() {
	t.r.mu.Lock()
	delete(t.r.inflight, t.it.did)
	if t.holder != nil {
		t.holder.claimed--
	}
	t.r.mu.Unlock()
	signal(t.r.kick)
}

// done counts a copy that is complete and takes the DID out of flight.
func (t *task) done(row store.Repo) {
	t.r.metrics.tasks.WithLabelValues(resultSynced).Inc()
	t.depart()
	if row.State == store.StatePending {
		t.r.note(row.Pending.Host)
	}
}
