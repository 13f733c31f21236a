package backfill

import (
	"context"
	"time"

	"cistern/ingest/identity"
	"cistern/store"
)

// item is a pending repository that waits for a task.
type item struct {
	did    string
	key    store.PendingKey
	ident  *identity.Identity // from a lookup before it waited; nil: not resolved
	looked time.Time          // when ident was requested
	marks  identityMarks      // of the row, before ident was requested
}

// queue holds the repositories that wait for one host. Runner.mu guards it, except for the fields
// that the dispatcher owns. An idle queue is dropped, so that its host may be evicted.
type queue struct {
	host    uint32 // 0: repositories whose host is unknown
	claimed int    // DIDs in flight, including those that only wait for their import to be flipped
	room    []item // resolved, waiting in memory for a permit; they count as in flight
	more    bool   // the stored queue may hold rows that are not in ready
	reading bool   // the stored queue is being read
	stalled bool   // listed in Runner.stalled

	ready []item // owned by the dispatcher: rows read ahead
}

func (q *queue) hasWork() bool { return len(q.room) > 0 || len(q.ready) > 0 || q.more }

// queueOf returns the queue of a host, and creates it if necessary. Called with mu held.
func (r *Runner) queueOf(id uint32) *queue {
	q := r.queues[id]
	if q == nil {
		q = &queue{host: id}
		r.queues[id] = q
	}
	return q
}

// unclaim subtracts a DID from the DIDs in flight of a queue. Called with mu held.
func (r *Runner) unclaim(q *queue) {
	q.claimed--
	r.drop(q)
}

// drop deletes a queue if it is idle. Called with mu held.
func (r *Runner) drop(q *queue) {
	if !q.hasWork() && q.claimed == 0 && !q.reading && !q.stalled && r.queues[q.host] == q {
		delete(r.queues, q.host)
	}
}

// push offers a host with work to the dispatcher. The queue of unknown hosts (id 0) is not offered:
// it is served when no other host can be. If the table of hosts is full, the queue is dropped from
// memory, and a later scan finds its rows. Called with mu held.
func (r *Runner) push(q *queue) {
	if q.host == 0 || !q.hasWork() || r.hosts.Offer(q.host) {
		return
	}
	q.ready, q.more, r.rescanAll = nil, false, true
	r.clearRoom(q)
	r.drop(q)
}

// stall sets aside a host whose work needs lookups while lookups are parked. Called with mu held.
func (r *Runner) stall(q *queue) {
	if !q.stalled {
		q.stalled = true
		r.stalled = append(r.stalled, q)
	}
}

// unstall returns stalled hosts to the dispatcher once lookups are no longer parked. Called with mu
// held.
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

// scanHosts offers the queues that received rows to the dispatcher, and now and then all queues
// that hold rows: a row that stayed in its queue while its task was dropped causes no wake-up.
func (r *Runner) scanHosts() {
	now := r.opts.Now()
	ago := func(then time.Time) time.Duration {
		if d := now.Sub(then); d >= 0 {
			return d
		}
		return time.Hour // the clock was set back
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

// scanIn returns how long until scanHosts has work, sleepMax if it has none. Called with mu held.
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

// look records that the queue of a host holds rows, the first of them with a priority. Called with
// mu held.
func (r *Runner) look(id uint32, priority uint8) {
	q := r.queueOf(id)
	if len(q.ready) > 0 && priority < q.ready[0].key.Priority {
		q.ready = nil // a more urgent row was enqueued; the rows read ahead are still stored
	}
	q.more = true
	r.push(q)
}

// flight is a DID in flight. key is the place in the queue that it was taken from. anew means that
// a read of a queue has found the DID at another place since: its row was enqueued again while the
// task ended, and no other wake-up follows.
type flight struct {
	key  store.PendingKey
	anew bool
	host uint32 // the host of that other place
}

// passOver reports whether a row of the queue is in flight. If it was taken from another place,
// passOver records this place (flight.anew).
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

// land removes a DID from the DIDs in flight. Called with mu held.
func (r *Runner) land(did string) {
	f := r.inflight[did]
	delete(r.inflight, did)
	delete(r.versions, did)
	if f == nil || !f.anew {
		return
	}
	r.lookInto(f.host)
}

// lookInto wakes the dispatcher because the queue of a host received rows, or kept the row of a
// task that ended. Called with mu held.
func (r *Runner) lookInto(id uint32) {
	q := r.queueOf(id)
	q.more = true
	r.push(q)
	signal(r.kick)
}

// refill reads the next rows of a host's queue. Rows in flight come first in the queue, so the more
// are in flight, the more rows are read at once.
func (r *Runner) refill(ctx context.Context, q *queue) error {
	r.mu.Lock()
	q.more, q.reading = false, true // a row that is enqueued from here on sets more again
	ahead := q.claimed
	if q.host == 0 {
		// Repositories whose host was found stay in this queue until they are done.
		ahead = len(r.inflight)
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
