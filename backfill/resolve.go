package backfill

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"cistern/backfill/hosts"
	"cistern/backfill/pace"
	"cistern/ingest/identity"
	"cistern/store"
)

// pickUnresolved starts a lookup for a repository whose host is unknown. Lookups run ahead of the
// free permits, but not far: a repository whose host turns out to be busy must be written to the
// queue of that host. Called with mu held.
func (r *Runner) pickUnresolved(now time.Time) (t *task, refill *queue) {
	q := r.queues[0]
	if q == nil || !r.lookups.Open(pace.Fetch, now) || r.moveDebt(now) > 0 {
		return nil, nil
	}
	if r.hosts.Free() == 0 && r.resolving+r.waiting >= r.opts.Concurrency {
		return nil, nil
	}
	it, ok := r.take(q, false)
	if ok {
		r.resolving++
		return &task{r: r, it: it, holder: q, lookPermit: r.lookups.Begin(pace.Fetch, now), looking: true}, nil
	}
	if q.more {
		return nil, q
	}
	r.drop(q)
	return nil, nil
}

// moveDebt returns how long until another row may be moved, 0 if one may be moved now. Called with
// mu held.
func (r *Runner) moveDebt(now time.Time) time.Duration {
	missing := 1 - r.moves.TokensAt(now)
	if missing <= 0 {
		return 0
	}
	return time.Duration(missing / movesPerSecond * float64(time.Second))
}

// place acquires a permit of a host. If no permit is free, the repository waits in memory and the
// task is passed on, or the task ends with the repository in the queue of the host.
func (t *task) place(host string) (outcome, error) {
	id, err := t.r.hostID(host)
	if err != nil {
		return outcome{}, err
	}
	t.hostID = id
	if t.r.acquire(t) {
		return outcome{}, nil
	}
	return t.move()
}

// acquire takes a permit for a resolved repository, or passes the task on to wait in memory for
// one. It returns false if neither is possible: the repository must be moved to the queue of its
// host.
func (r *Runner) acquire(t *task) bool {
	now := r.opts.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.looking {
		r.looked(t)
	}
	permit, soon := r.hosts.Acquire(t.hostID)
	if !soon {
		r.moves.ReserveN(now, 1)
		return false
	}
	q := r.queueOf(t.hostID)
	if permit == nil && (len(q.room) >= roomMax || r.waiting >= roomsMax) {
		r.drop(q)
		r.moves.ReserveN(now, 1)
		return false
	}
	q.claimed++
	r.unclaim(t.holder)
	if permit != nil {
		t.holder, t.permit = q, permit
		return true
	}
	t.passed = true // before another task takes the item from q.room
	if t.ident.DID != "" {
		t.it.ident, t.it.looked, t.it.marks = &t.ident, now, t.marks
	}
	q.room = append(q.room, t.it)
	r.waiting++
	r.push(q)
	signal(r.kick)
	return true
}

// move writes the repository to the queue of its host, with its identity, and ends the task.
func (t *task) move() (outcome, error) {
	row, err := t.update(func(b *store.Batch, row *store.Repo) error {
		t.hostID = t.hostOr(row)
		row.Pending = store.PendingKey{Host: t.hostID, Priority: row.Pending.Priority}
		t.learn(b, row)
		return nil
	})
	if err != nil {
		return outcome{}, err
	}
	return ended(row, ""), nil
}

// learn writes the identity that the document states to the row of a repository without stored
// records. For a repository with records, the batch that completes the copy writes it, with an
// event.
func (t *task) learn(b *store.Batch, row *store.Repo) {
	if row.Ordinal == 0 {
		t.know(b, row, false)
	}
}

// identify resolves the host and the key. An identity from a lookup before the repository waited,
// or from the cache of the directory after its row was moved here, may be outdated: if the host
// contradicts it, copy calls refresh.
func (t *task) identify(ctx context.Context) error {
	if t.it.ident != nil {
		t.ident, t.looked, t.marks = *t.it.ident, t.it.looked, t.it.marks
		return nil
	}
	moved := t.row.Ordinal == 0 && t.row.Key != "" && t.row.Retry.Count == 0
	if !moved {
		return t.refresh(ctx)
	}
	if t.marks = marksOf(&t.row); t.row.Resolved != 0 {
		t.looked = time.Unix(t.row.Resolved, 0)
	}
	return t.lookup(ctx)
}

// refresh reads the document again, past the cache of the directory.
func (t *task) refresh(ctx context.Context) error {
	t.r.opts.Directory.Purge(t.it.did)
	t.fresh, t.looked, t.marks = true, t.r.opts.Now(), marksOf(&t.row)
	if err := t.lookup(ctx); err != nil {
		return err
	}
	t.r.answeredLookup(t)
	return nil
}

// answeredLookup reports a successful lookup to the limiter of lookups, so that earlier failures no
// longer slow lookups of all repositories.
func (r *Runner) answeredLookup(t *task) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !strings.HasPrefix(t.it.did, didWeb) {
		r.lookups.Note(pace.Outcome{Answered: true}, t.lookPermit, r.opts.Now())
	}
}

func (t *task) lookup(ctx context.Context) error {
	ident, err := t.r.opts.Directory.Resolve(ctx, t.it.did)
	if err != nil {
		return &hosts.ResolveError{Err: err}
	}
	if ident.DID != t.it.did || ident.PDS == "" {
		return &hosts.ResolveError{Err: identity.ErrInvalid}
	}
	t.ident = ident
	return nil
}

// hostID returns the store's id of a host.
func (r *Runner) hostID(host string) (uint32, error) {
	id, err := r.store.HostID(host)
	if errors.Is(err, store.ErrCorrupt) {
		return 0, ours(err)
	}
	if err != nil {
		return 0, &hosts.ResolveError{Err: fmt.Errorf("%w: %w", identity.ErrInvalid, err)}
	}
	return id, nil
}

const didWeb = "did:web:"

// webAuthority returns the host that serves the document of a did:web.
func webAuthority(did string) (string, bool) {
	name, ok := strings.CutPrefix(did, didWeb)
	if !ok {
		return "", false
	}
	name, err := url.PathUnescape(name)
	if err != nil {
		return "", false // cannot be resolved either
	}
	origin, err := identity.ParseOrigin(name)
	return identity.HostOf(origin), err == nil
}
