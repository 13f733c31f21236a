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

// await waits until something may have changed.
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

// idles is how long the dispatcher has nothing to do unless it is woken.
func (r *Runner) idles(now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := r.unpark(now)
	d := r.scanIn(now)
	if !next.IsZero() {
		d = min(d, next.Sub(now))
	}
	if r.sched.Ready() && !r.opts.Gate.IsShut() {
		d = 0 // unpark has just put them there
	}
	if wait := r.moveDebt(now); wait > 0 {
		d = min(d, wait)
	}
	return max(d, 0)
}

// next finds a task and takes its permits; nil when none can be started now.
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

// pick takes permits for the repository whose turn it is, or names the host whose queue must be
// read first. Hosts take turns; repositories of unknown host come when the known ones' are served.
func (r *Runner) pick() (t *task, refill *host) {
	now := r.opts.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unpark(now)
	if r.opts.Gate.IsShut() {
		return nil, nil
	}
	for {
		picked := r.sched.Pick(now)
		if picked == nil {
			break
		}
		h := r.hosts[picked.ID]
		it, ok := r.take(h, now)
		if ok {
			return r.start(h, it), nil
		}
		if r.lookupsParked(now) {
			r.stall(h)
		} else if h.more {
			return nil, h
		}
	}
	return r.pickUnresolved(now)
}

// lookupsParked says that only those can go on whose host and key were just found. Called with mu held.
func (r *Runner) lookupsParked(now time.Time) bool {
	h := r.hosts[0]
	return h != nil && h.Parked(now)
}

// take finds the next repository of a host. Called with mu held.
func (r *Runner) take(h *host, now time.Time) (item, bool) {
	if len(h.room) > 0 {
		it := h.room[0]
		h.room[0] = item{}
		h.room = h.room[1:]
		r.waiting--
		return it, true
	}
	for len(h.ready) > 0 && !r.lookupsParked(now) {
		it := h.ready[0]
		h.ready[0] = item{}
		h.ready = h.ready[1:]
		if !r.busy(it.did, it.key) {
			r.inflight[it.did] = &flight{key: it.key}
			h.claimed++
			return it, true
		}
	}
	return item{}, false
}

// clearRoom puts those who wait for a permit of a host back into the queues where they stand: a ban may last, and an
// account that moves meanwhile is not to wait for its former host. Called with mu held.
func (r *Runner) clearRoom(h *host) {
	for _, it := range h.room {
		r.waiting--
		h.claimed--
		r.land(it.did)
		r.lookInto(it.key.Host)
	}
	h.room = nil
}

// start takes the permits. Called with mu held, a free permit, and the item in flight.
func (r *Runner) start(h *host, it item) *task {
	t := &task{r: r, it: it, holder: h, lookPermit: r.lookMark()}
	r.grant(t, h)
	r.push(h)
	return t
}

// grant gives a task its permits. Called with mu held.
func (r *Runner) grant(t *task, h *host) {
	t.permit = r.sched.Begin(&h.Host, r.opts.Now())
	t.host, t.global, t.local, t.prepaid = h, true, true, true
}

// lookMark is what a lookup that begins now has to show. Called with mu held.
func (r *Runner) lookMark() pace.Permit {
	if h := r.hosts[0]; h != nil {
		return h.Mark()
	}
	return pace.Permit{}
}

// looked ends a lookup that counts as one. Called with mu held.
func (r *Runner) looked(t *task) {
	t.looking = false
	r.resolving--
	r.hosts[0].End()
}

// release gives a task's permits back; those of the host alone when its transfer has ended.
func (r *Runner) release(t *task, global bool) {
	r.mu.Lock()
	if t.local {
		t.local = false
		if t.prepaid {
			t.prepaid = false
			t.host.Refund(pace.Fetch)
		}
		r.leaveHost(t.host)
	}
	if t.looking {
		r.looked(t)
	}
	if global && t.global {
		t.global = false
		r.sched.Return(&t.host.Host, t.permit, r.opts.Now())
	}
	if r.onlyImports() {
		signal(r.kickIdle)
	}
	r.mu.Unlock()
	signal(r.kick)
}

// leave takes a DID out of flight. Its row is written by now, or left to whoever changed it.
func (r *Runner) leave(t *task) {
	r.release(t, true)
	t.left = true
	r.mu.Lock()
	r.land(t.it.did)
	if t.holder != nil {
		t.holder.claimed--
	}
	r.mu.Unlock()
}

// quiet is nil for errors that only say that we were told to end.
func quiet(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
