package backfill

import (
	"context"
	"time"

	"cistern/backfill/pace"

	"golang.org/x/sync/errgroup"
)

// dispatch starts a task whenever there are permits for one, until ctx ends.
func (r *Runner) dispatch(ctx context.Context, g *errgroup.Group) error {
	for {
		r.scanHosts()
		for {
			t, err := r.next(ctx)
			if err != nil {
				return quiet(ctx, err)
			}
			if t == nil {
				break
			}
			g.Go(func() error { return t.run(ctx) })
		}
		if done, err := r.await(ctx); done {
			return err
		}
	}
}

// await waits until another task may be able to start. done means that Run ends.
func (r *Runner) await(ctx context.Context) (done bool, err error) {
	t := time.NewTimer(r.idles(r.opts.Now()))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return true, nil
	case err := <-r.fatal:
		return true, err
	case <-r.kick:
	case <-t.C:
	}
	return false, nil
}

// idles returns how long the dispatcher may sleep unless it is woken.
func (r *Runner) idles(now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unstall(now)
	d := r.scanIn(now)
	if at := r.hosts.Next(now); !at.IsZero() && !r.opts.Gate.IsShut() {
		d = min(d, at.Sub(now))
	}
	if r.lookups.Parked(now) {
		d = min(d, r.lookups.Opens(pace.Fetch, now).Sub(now))
	}
	if wait := r.moveDebt(now); wait > 0 {
		d = min(d, wait)
	}
	return max(d, 0)
}

// next returns a task that holds its permits, or nil if none can start now.
func (r *Runner) next(ctx context.Context) (*task, error) {
	for ctx.Err() == nil {
		t, refill := r.pick()
		if t != nil || refill == nil {
			return t, nil
		}
		if err := r.refill(ctx, refill); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// pick takes permits for the next repository and returns its task. If the queue of a host must be
// read first, pick returns that queue instead. Hosts take turns. Repositories whose host is unknown
// come after the repositories of known hosts.
func (r *Runner) pick() (t *task, refill *queue) {
	now := r.opts.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unstall(now)
	if r.opts.Gate.IsShut() {
		return nil, nil
	}
	parked := r.lookups.Parked(now)
	for {
		var it item
		id, permit := r.hosts.Pick(now, func(id uint32) (ok bool) {
			it, ok = r.take(r.queues[id], parked)
			return ok
		})
		if id == 0 {
			break
		}
		q := r.queues[id]
		switch {
		case permit != nil:
			r.push(q)
			return &task{r: r, it: it, holder: q, permit: permit, lookPermit: r.lookups.Mark()}, nil
		case q == nil:
		case parked:
			r.stall(q)
		case q.more:
			return nil, q
		default:
			r.drop(q)
		}
	}
	return r.pickUnresolved(now)
}

// take removes the next repository from the queue of a host. While lookups are parked, it returns
// only repositories whose host and key were just resolved. Called with mu held.
func (r *Runner) take(q *queue, parked bool) (item, bool) {
	if q == nil {
		return item{}, false
	}
	if len(q.room) > 0 {
		it := q.room[0]
		q.room[0] = item{}
		q.room = q.room[1:]
		r.waiting--
		return it, true
	}
	for len(q.ready) > 0 && !parked {
		it := q.ready[0]
		q.ready[0] = item{}
		q.ready = q.ready[1:]
		if !r.busy(it.did, it.key) {
			r.inflight[it.did] = &flight{key: it.key}
			q.claimed++
			return it, true
		}
	}
	return item{}, false
}

// clearRoom returns the repositories that wait in memory for a permit of a host to their stored
// queues. A ban may last, and an account that moves meanwhile must not wait for its former host.
// Called with mu held.
func (r *Runner) clearRoom(q *queue) {
	room := q.room
	q.room = nil
	for _, it := range room {
		r.waiting--
		r.unclaim(q)
		r.land(it.did)
		r.lookInto(it.key.Host)
	}
}

// looked ends the lookup of a task. Called with mu held.
func (r *Runner) looked(t *task) {
	t.looking = false
	r.resolving--
	r.lookups.End()
}

// release returns the permit of a task. Without all, it returns only the share of the host, because
// only the transfer has ended.
func (r *Runner) release(t *task, all bool) {
	switch {
	case t.permit == nil:
	case all:
		t.permit.Close()
	default:
		t.permit.Leave()
	}
	r.mu.Lock()
	if t.looking {
		r.looked(t)
	}
	if r.onlyImports() {
		signal(r.kickIdle)
	}
	r.mu.Unlock()
	signal(r.kick)
}

// quiet returns nil for an error that only says that ctx ended.
func quiet(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
