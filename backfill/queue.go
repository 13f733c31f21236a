package backfill

import (
	"context"
	"time"

	"cistern/store"
)

// scanHosts has the dispatcher look at the queues into which somebody put rows, and now and then at all that hold any:
// a row that stayed in its queue while its task was dropped is told of by nobody.
func (r *Runner) scanHosts() {
	now := r.opts.Now()
	ago := func(then time.Time) time.Duration {
		if d := now.Sub(then); d >= 0 {
			return d
		}
		return time.Hour // a stepped clock
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if since := ago(r.scanned); r.rescan && since >= rescanEvery || since >= sleepMax {
		r.rescan, r.scanned = false, now
		for id, priority := range r.store.TakeEnqueued() {
			r.look(id, priority)
		}
	}
	if r.rescanAll && ago(r.scannedAll) >= rescanAllEvery {
		r.rescanAll, r.scannedAll = false, now
		for _, id := range r.store.QueuedHosts() {
			r.look(id, 1<<8-1)
		}
	}
}

// scanIn is how long until scanHosts has something to do, sleepMax for nothing. Called with mu held.
func (r *Runner) scanIn(now time.Time) time.Duration {
	d := sleepMax
	if r.rescan {
		d = min(d, rescanEvery)
	}
	if r.rescanAll {
		d = min(d, max(rescanEvery, r.scannedAll.Add(rescanAllEvery).Sub(now)))
	}
	return d
}

// look says that there are rows in a host's queue, the first of a priority. Called with mu held.
func (r *Runner) look(id uint32, priority uint8) {
	h := r.hostOf(id)
	if h == nil {
		r.rescanAll = true // the table is full of hosts with work: when some of it is done
		return
	}
	if len(h.ready) > 0 && priority < h.ready[0].key.Priority {
		h.ready = nil // something more urgent came; what was read ahead stands in the queue
	}
	h.more = true
	r.push(h)
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
	r.lookInto(f.host)
}

// lookInto says that a host's queue got rows, or kept one that a task let go of. Called with mu held.
func (r *Runner) lookInto(id uint32) {
	if h := r.hostOf(id); h != nil {
		h.more = true
		r.push(h)
	} else {
		r.rescanAll = true
	}
	signal(r.kick)
}

// refill reads the next rows of a host's queue. Those in flight stand in front of the others, so
// the more there are, the more is read at once.
func (r *Runner) refill(ctx context.Context, h *host) error {
	r.mu.Lock()
	h.more, h.reading = false, true // from here on enqueueing sets more again
	ahead := h.claimed
	if h.ID == 0 {
		ahead = len(r.inflight) // those that found their host stand here until they are done
	}
	n := min(max(ahead/2, readyMin), readyMax)
	r.mu.Unlock()
	ready := h.ready[:0:0]
	full := false
	err := r.store.ScanPending(ctx, h.ID, func(k store.PendingKey, did string) bool {
		if k.Host != h.ID {
			return false
		}
		if r.passOver(did, k) {
			return true
		}
		if len(ready) == n {
			full = true
			return false
		}
		ready = append(ready, item{did: did, key: k})
		return true
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	h.ready, h.reading = ready, false
	h.more = h.more || full
	if h.ID != 0 {
		r.push(h)
	}
	return ours(err)
}
