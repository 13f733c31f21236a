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

// admit waits until a host may be asked once more, and returns a permit for one query that belongs
// to no fetch of a repository. If the host is parked, or the wait would exceed admitMax, the error
// is a BusyError; if the host is banned, it is ErrBanned. Then the caller should do other work.
func (t *Table) admit(ctx context.Context, id uint32) (*Permit, error) {
	for {
		h, p, w, err := t.enter(id)
		if err != nil || p != nil {
			return p, err
		}
		if w == nil { // the host may be asked soon
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

// enter returns a permit if one is free, or else a place in the queue for it. It returns neither if
// the host may not be asked yet but soon.
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

// giveUp removes a waiter from the queue. If the waiter was granted a permit meanwhile, giveUp
// returns the permit.
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

// serve gives free permits of a host to waiting requests. If the host is banned or has spent a
// window, it tells them to check the host again. Called with mu held.
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
