package hosts

import (
	"context"
	"slices"
	"time"

	"cistern/backfill/pace"
	"cistern/loop"
)

// waiter waits for a permit of a host.
type waiter struct {
	granted chan *Permit // delivers one permit; closed when the host must be checked again
}

// admit waits until a host may be asked once more, for a request that belongs to no repository
// being fetched, and gives a permit for one query. A host that is parked or has spent a window for
// more than admitMax is a BusyError, a banned one ErrBanned: the caller should do something else
// meanwhile.
func (t *Table) admit(ctx context.Context, id uint32) (*Permit, error) {
	for {
		h, p, w, err := t.enter(id)
		if err != nil || p != nil {
			return p, err
		}
		if w == nil { // in a moment
			loop.Sleep(ctx, max(t.opensIn(id), time.Millisecond), nil)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			continue
		}
		select {
		case p, ok := <-w.granted:
			if ok {
				return p, nil
			}
		case <-ctx.Done():
			t.giveUp(h, w)
			return nil, ctx.Err()
		}
	}
}

// enter takes a permit if there is one, or queues for it, or gives neither when the host opens
// soon.
func (t *Table) enter(id uint32) (h *host, p *Permit, w *waiter, err error) {
	now := t.opts.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if h = t.hostOf(id); h == nil {
		return nil, nil, nil, &BusyError{Until: now.Add(fullPause)}
	}
	switch at := h.Opens(pace.Query, now); {
	case h.Banned():
		return nil, nil, nil, ErrBanned
	case at.Sub(now) > admitMax || h.Parked(now):
		return nil, nil, nil, &BusyError{Until: at}
	case at.After(now):
		return nil, nil, nil, nil
	case h.Open(pace.Query, now) && len(h.waiters) == 0:
		return h, t.query(h, now), nil, nil
	}
	w = &waiter{granted: make(chan *Permit, 1)}
	h.waiters = append(h.waiters, w)
	return h, nil, w, nil
}

func (t *Table) opensIn(id uint32) time.Duration {
	now := t.opts.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.hosts[id]; h != nil {
		return h.Opens(pace.Query, now).Sub(now)
	}
	return 0
}

// giveUp takes back a place in the queue, or the permit that it has just become.
func (t *Table) giveUp(h *host, w *waiter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := slices.Index(h.waiters, w); i >= 0 {
		h.waiters = slices.Delete(h.waiters, i, i+1)
		return
	}
	if p, ok := <-w.granted; ok { // filled or closed under mu
		p.give(false)
	}
}

// serve gives permits to requests that wait for one of a host. When that is not a matter of permits
// any more, they must look again. Called with mu held.
func (t *Table) serve(h *host, now time.Time) {
	for len(h.waiters) > 0 {
		w := h.waiters[0]
		switch {
		case h.Open(pace.Query, now):
			w.granted <- t.query(h, now)
		case h.Banned() || h.Opens(pace.Query, now).After(now):
			close(w.granted)
		default:
			return
		}
		h.waiters = slices.Delete(h.waiters, 0, 1)
	}
}
