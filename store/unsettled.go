package store

import (
	"context"
	"slices"
	"sync"
)

// unsettled tracks the repositories whose events were hidden by a batch that is not durable yet: a
// reader of the log must not pass these events, since a crash may bring them back.
type unsettled struct {
	mu sync.Mutex
	// mu guards: number of the newest batch; the order of numbers is that of the log
	last  uint64
	of    map[string]uint64 // mu guards: DID → the newest batch that hid its events
	queue []gatedBy         // mu guards: in order of batch
	held  bool              // mu guards: a reader stopped before such an event
	// mu guards: number of the newest batch that is known to be durable, and the readers that wait
	// for later ones
	durable uint64
	waiting []durableWait
}

// durableWait is a reader that waits for a batch to be durable.
type durableWait struct {
	batch uint64
	done  chan struct{}
}

type gatedBy struct {
	did   string
	batch uint64
}

// add numbers a batch that is about to be applied, and records the repositories whose events it
// hides.
func (u *unsettled) add(dids []string) (number uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.last++
	for _, did := range dids {
		if u.of == nil {
			u.of = map[string]uint64{}
		}
		u.of[did] = u.last
		u.queue = append(u.queue, gatedBy{did, u.last})
	}
	return u.last
}

// settle records that a batch, and so every earlier batch, is durable. wake reports whether a
// reader may be waiting for it.
func (u *unsettled) settle(number uint64) (wake bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.durable = max(u.durable, number)
	u.waiting = slices.DeleteFunc(u.waiting, func(w durableWait) bool {
		reached := w.batch <= u.durable
		if reached {
			close(w.done)
		}
		return reached
	})
	n := 0
	for n < len(u.queue) && u.queue[n].batch <= number {
		if g := u.queue[n]; u.of[g.did] == g.batch {
			delete(u.of, g.did)
		}
		n++
	}
	if n == 0 {
		return false
	}
	if u.queue = u.queue[n:]; len(u.queue) == 0 {
		u.queue = nil
	}
	wake = u.held
	u.held = false
	return wake
}

// holds reports whether a reader must not pass the hidden events of a repository yet. If so, a
// later settle reports wake.
func (u *unsettled) holds(did string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	_, held := u.of[did]
	u.held = u.held || held
	return held
}

// wait returns a channel that is closed when every batch that was applied before the call is
// durable, or nil if they are.
func (u *unsettled) wait() <-chan struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.last == u.durable {
		return nil
	}
	w := durableWait{u.last, make(chan struct{})}
	u.waiting = append(u.waiting, w)
	return w.done
}

// Settled waits until every batch that was applied before the call is durable.
func (s *Store) Settled(ctx context.Context) error {
	done := s.unsettled.wait()
	if done == nil {
		return nil
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.failed:
		return s.failure
	}
}

// gates reports whether a change of a row hides events that were shown.
func gates(old, now rowState) bool {
	return old.ordinal != 0 && (now.ordinal != old.ordinal || now.hidden && !old.hidden)
}
