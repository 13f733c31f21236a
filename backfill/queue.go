package backfill

import (
	"context"

	"cistern/store"
)

// scanHosts looks at the front of every host's queue when rows were enqueued by somebody else.
func (r *Runner) scanHosts(ctx context.Context) error {
	now := r.opts.Now()
	r.mu.Lock()
	due := r.rescan && !(now.Sub(r.scanned) < rescanEvery && now.After(r.scanned))
	if due {
		r.rescan = false
	}
	r.mu.Unlock()
	if !due {
		return nil
	}
	r.scanned = now
	from := r.scanFrom
	r.scanFrom = 0
	err := r.store.ScanPending(ctx, from, func(k store.PendingKey, _ string) store.Scan {
		r.mu.Lock()
		defer r.mu.Unlock()
		h := r.hostOf(k.Host)
		if h == nil {
			// The table is full of hosts with work: go on from here when some of it is done.
			r.scanFrom, r.rescan = k.Host, true
			return store.ScanStop
		}
		if len(h.ready) > 0 && k.Priority < h.ready[0].key.Priority {
			h.ready = nil // something more urgent came; what was read ahead stands in the queue
		}
		h.more = true
		r.push(h)
		return store.ScanSkipHost
	})
	if from > 0 && r.scanFrom == 0 {
		r.mu.Lock()
		r.rescan = true // the hosts before it
		r.mu.Unlock()
	}
	return ours(err)
}

// flight is a DID in flight: the place in the queue that it was taken from, and whether it was met at another since. Then its
// row was enqueued anew while the task ended, and nobody else tells of it.
type flight struct {
	key  store.PendingKey
	anew bool
	host uint32 // where it was met
}

// passOver says whether a row of the queue is in flight.
func (r *Runner) passOver(did string, k store.PendingKey) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.busy(did, k)
}

// busy is passOver with mu held.
func (r *Runner) busy(did string, k store.PendingKey) bool {
	f := r.inflight[did]
	if f != nil && f.key != k {
		f.anew, f.host = true, k.Host
	}
	return f != nil
}

// land takes a DID out of flight. Called with mu held.
func (r *Runner) land(did string) {
	f := r.inflight[did]
	delete(r.inflight, did)
	delete(r.versions, did)
	if f == nil || !f.anew {
		return
	}
	if h := r.hostOf(f.host); h != nil {
		h.more = true
		r.push(h)
	} else {
		r.rescan = true
	}
	signal(r.kick)
}

// refill reads the next rows of a host's queue. Those in flight stand in front of the others, so
// the more there are, the more is read at once.
func (r *Runner) refill(ctx context.Context, h *host) error {
	r.mu.Lock()
	h.more = false // from here on enqueueing sets it again
	ahead := h.claimed
	if h.ID == 0 {
		ahead = len(r.inflight) // those that found their host stand here until they are done
	}
	n := min(max(ahead/2, readyMin), readyMax)
	r.mu.Unlock()
	ready := h.ready[:0:0]
	full := false
	err := r.store.ScanPending(ctx, h.ID, func(k store.PendingKey, did string) store.Scan {
		if k.Host != h.ID {
			return store.ScanStop
		}
		if r.passOver(did, k) {
			return store.ScanNext
		}
		if len(ready) == n {
			full = true
			return store.ScanStop
		}
		ready = append(ready, item{did: did, key: k})
		return store.ScanNext
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	h.ready = ready
	h.more = h.more || full
	if h.ID != 0 {
		r.push(h)
	}
	return ours(err)
}
