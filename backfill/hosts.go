package backfill

import (
	"container/heap"
	"strings"
	"time"
)

// hostOf finds the entry of a host or makes one; nil when the table is full of hosts that are in
// use. Called with mu held.
func (r *Runner) hostOf(id uint32) *host {
	if h := r.hosts[id]; h != nil {
		return h
	}
	if len(r.hosts) >= hostsMax && !r.evict() {
		return nil
	}
	h := &host{id: id, heap: -1}
	r.hosts[id] = h
	return h
}

// evict forgets an idle host, one without faults if chance offers it.
func (r *Runner) evict() bool {
	const tries = 64
	now := r.opts.Now()
	var found *host
	seen := 0
	for _, h := range r.hosts { // Go starts anywhere
		if h.id != 0 && h.idle(now) {
			found = h
			if h.faults == 0 {
				break
			}
		}
		if seen++; seen == tries && found != nil {
			break
		}
	}
	if found == nil {
		return false
	}
	delete(r.hosts, found.id)
	return true
}

// push makes the dispatcher consider a host, unless it stands for the unknown ones (id 0), which
// come when there is nobody else. Called with mu held.
func (r *Runner) push(h *host) {
	if h.id == 0 || h.queued || !h.hasWork() || !h.open(r.opts.Now(), r.opts.PerHost) {
		return
	}
	h.queued = true
	r.runnable = append(r.runnable, h)
}

// pop takes the host whose turn it is. Called with mu held.
func (r *Runner) pop() *host {
	if len(r.runnable) == 0 {
		return nil
	}
	h := r.runnable[0]
	r.runnable[0] = nil
	r.runnable = r.runnable[1:]
	h.queued = false
	return h
}

// park leaves a host alone for d, or as long as it is parked already. Called with mu held.
func (r *Runner) park(h *host, d time.Duration) {
	if d <= 0 {
		return
	}
	h.epoch++
	h.trying = true
	until := r.opts.Now().Add(d)
	if !until.After(h.until) {
		return
	}
	h.until = until
	if h.heap < 0 {
		heap.Push(&r.parked, h)
	} else {
		heap.Fix(&r.parked, h.heap)
	}
	r.metrics.parkings.Inc()
}

// unpark returns the hosts whose time has come to the dispatcher, and says when the next one's
// comes (zero: none). Called with mu held.
func (r *Runner) unpark(now time.Time) time.Time {
	for len(r.parked) > 0 {
		h := r.parked[0]
		if h.isParked(now) {
			return h.until
		}
		heap.Pop(&r.parked)
		r.push(h)
		if h.id == 0 {
			for _, h := range r.hosts { // all waited for lookups
				r.push(h)
			}
		}
	}
	return time.Time{}
}

// judge tells the host of a task what its attempt says of it, or the lookups what a failed one
// says of them: those of did:plc share a directory, those of did:web are up to the DID's own host.
func (r *Runner) judge(t *task, v verdict) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h, epoch := t.host, t.epoch
	if v.lookup && !strings.HasPrefix(t.it.did, didWeb) {
		h, epoch = r.hostOf(0), t.lookEpoch
	}
	if h == nil {
		return
	}
	if v.fault == noFault && v.park == 0 {
		if v.spoke && epoch == h.epoch {
			h.succeeded()
		}
		return
	}
	r.park(h, max(v.park, h.failed(v.fault, epoch)))
}
