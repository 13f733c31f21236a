package backfill

import (
	"context"
	"time"

	"cistern/ingest/identity"
	"cistern/store"
)

// item is a pending repository on its way to a task.
type item struct {
	did    string
	key    store.PendingKey
	ident  *identity.Identity // looked up for this place in the queue; nil: not yet
	looked time.Time          // when
	marks  identityMarks      // of the row, before
}

// queue is what waits for one host. Runner.mu guards it, except where the dispatcher owns it. A queue
// that is idle is dropped: its host may be forgotten then.
type queue struct {
	host    uint32 // 0: repositories whose host is unknown
	claimed int    // DIDs in flight, those that only wait for their import to be flipped too
	room    []item // resolved, waiting for a permit; in flight already
	more    bool   // it may hold rows that are not in ready
	reading bool   // its rows are being read
	stalled bool   // is in Runner.stalled

	ready []item // owned by the dispatcher: rows read ahead
}

func (q *queue) hasWork() bool { return len(q.room) > 0 || len(q.ready) > 0 || q.more }

// queueOf finds the queue of a host or makes one. Called with mu held.
func (r *Runner) queueOf(id uint32) *queue {
	q := r.queues[id]
	if q == nil {
		q = &queue{host: id}
		r.queues[id] = q
	}
	return q
}

// unclaim takes a DID out of flight that a queue counts. Called with mu held.
func (r *Runner) unclaim(q *queue) {
	q.claimed--
	r.drop(q)
}

// drop forgets a queue if it is idle. Called with mu held.
func (r *Runner) drop(q *queue) {
	if !q.hasWork() && q.claimed == 0 && !q.reading && !q.stalled && r.queues[q.host] == q {
		delete(r.queues, q.host)
	}
}

// push makes the dispatcher consider a host, unless it stands for the unknown ones (id 0), which
// come when there is nobody else. If the table of hosts is full, its rows are looked for again when
// some of the others are done. Called with mu held.
func (r *Runner) push(q *queue) {
	if q.host == 0 || !q.hasWork() || r.hosts.Offer(q.host) {
		return
	}
	q.ready, q.more, r.rescanAll = nil, false, true
	r.clearRoom(q)
	r.drop(q)
}

// stall sets a host aside whose work needs lookups, while those are parked. Called with mu held.
func (r *Runner) stall(q *queue) {
	if !q.stalled {
		q.stalled = true
		r.stalled = append(r.stalled, q)
	}
}

// unstall returns hosts that were set aside to the dispatcher, once lookups go on. Called with mu held.
func (r *Runner) unstall(now time.Time) {
	if len(r.stalled) == 0 || r.lookups.Parked(now) {
		return
	}
	for _, q := range r.stalled {
		q.stalled = false
		r.push(q)
		r.drop(q)
	}
	clear(r.stalled)
	r.stalled = r.stalled[:0]
}

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
	q := r.queueOf(id)
	if len(q.ready) > 0 && priority < q.ready[0].key.Priority {
		q.ready = nil // something more urgent came; what was read ahead stands in the queue
	}
	q.more = true
	r.push(q)
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
	q := r.queueOf(id)
	q.more = true
	r.push(q)
	signal(r.kick)
}

// refill reads the next rows of a host's queue. Those in flight stand in front of the others, so
// the more there are, the more is read at once.
func (r *Runner) refill(ctx context.Context, q *queue) error {
	r.mu.Lock()
	q.more, q.reading = false, true // from here on enqueueing sets more again
	ahead := q.claimed
	if q.host == 0 {
		ahead = len(r.inflight) // those that found their host stand here until they are done
	}
	n := min(max(ahead/2, readyMin), readyMax)
	r.mu.Unlock()
	ready := q.ready[:0:0]
	full := false
	err := r.store.ScanPending(ctx, q.host, func(k store.PendingKey, did string) bool {
		if k.Host != q.host {
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
	q.ready, q.reading = ready, false
	q.more = q.more || full
	r.push(q)
	r.drop(q)
	return ours(err)
}
