package backfill

import (
	"time"

	"cistern/backfill/hosts"
	"cistern/ingest/identity"
	"cistern/loop"
	"cistern/store"
)

// item is a pending repository that waits for a task.
type item struct {
	did     string
	key     store.PendingKey
	ident   *identity.Identity // from a lookup before it waited; nil: not resolved
	askedAt time.Time          // when ident was requested
	marks   identityMarks      // of the row, before ident was requested
}

// queue holds the repositories that wait for one host. dispatcher.mu guards it, except for the
// fields that dispatcher.run owns. An idle queue is dropped, so that its host may be evicted.
type queue struct {
	host     uint32 // 0: the queue of repositories whose host is unknown
	claimed  int    // DIDs in flight, including those that only wait for their import to be flipped
	resolved []item // resolved, waiting in memory for a permit; they count as in flight
	more     bool   // the stored queue may hold rows that are not in ready
	reading  bool   // the stored queue is being read
	stalled  bool   // listed in queues.stalled

	ready []item // owned by dispatcher.run: rows read ahead
}

func (q *queue) hasWork() bool { return len(q.resolved) > 0 || len(q.ready) > 0 || q.more }

// queues are the queues of all hosts, with the repositories that wait in them. They find newly
// written rows, and offer hosts with work to the table of hosts. dispatcher.mu guards them, and
// every method is called with it held.
type queues struct {
	store *store.Store
	hosts *hosts.Table
	kick  chan struct{} // of the dispatcher

	of                  map[uint32]*queue // by host
	flights             flights
	waiting             int       // repositories that wait in memory for a permit
	stalled             []*queue  // need lookups, which were parked
	rescan              bool      // another package enqueued rows
	rescanAll           bool      // any queue may hold rows
	scanned, scannedAll time.Time // when the last scan of each kind ran
}

func newQueues(s *store.Store, table *hosts.Table, kick chan struct{}) queues {
	return queues{
		store: s, hosts: table, kick: kick,
		of: make(map[uint32]*queue), flights: newFlights(), rescanAll: true,
	}
}

// syncing returns the number of DIDs in flight that do not wait for a permit.
func (qs *queues) syncing() int { return len(qs.flights.inflight) - qs.waiting }

// open returns the queue of a host, and creates it if necessary.
func (qs *queues) open(id uint32) *queue {
	q := qs.of[id]
	if q == nil {
		q = &queue{host: id}
		qs.of[id] = q
	}
	return q
}

// unclaim subtracts a DID from the DIDs in flight of a queue.
func (qs *queues) unclaim(q *queue) {
	q.claimed--
	qs.drop(q)
}

// drop deletes a queue if it is idle.
func (qs *queues) drop(q *queue) {
	if !q.hasWork() && q.claimed == 0 && !q.reading && !q.stalled && qs.of[q.host] == q {
		delete(qs.of, q.host)
	}
}

// push offers a host with work to the dispatcher. The queue of unknown hosts (id 0) is not offered:
// it is served when no host can be. If the table of hosts is full, the queue is dropped from
// memory, and a later scan finds its rows.
func (qs *queues) push(q *queue) {
	if q.host == 0 || !q.hasWork() || qs.hosts.Offer(q.host) {
		return
	}
	q.ready, q.more, qs.rescanAll = nil, false, true
	qs.returnResolved(q)
	qs.drop(q)
}

// stall sets aside a host whose work needs lookups while lookups are parked.
func (qs *queues) stall(q *queue) {
	if !q.stalled {
		q.stalled = true
		qs.stalled = append(qs.stalled, q)
	}
}

// unstall returns the hosts that were set aside to the dispatcher.
func (qs *queues) unstall() {
	for _, q := range qs.stalled {
		q.stalled = false
		qs.push(q)
		qs.drop(q)
	}
	clear(qs.stalled)
	qs.stalled = qs.stalled[:0]
}

// scan offers the queues that received rows to the dispatcher, and now and then all queues that
// hold rows: a row that stayed in its queue while its task was dropped causes no wake-up.
func (qs *queues) scan(now time.Time) {
	ago := func(then time.Time) time.Duration {
		if d := now.Sub(then); d >= 0 {
			return d
		}
		return time.Hour // the clock was set back
	}
	if since := ago(qs.scanned); qs.rescan && since >= rescanEvery || since >= sleepMax {
		qs.rescan, qs.scanned = false, now
		for id, priority := range qs.store.TakeEnqueued() {
			qs.look(id, priority)
		}
	}
	if qs.rescanAll && ago(qs.scannedAll) >= rescanAllEvery {
		qs.rescanAll, qs.scannedAll = false, now
		for _, id := range qs.store.QueuedHosts() {
			qs.look(id, 1<<8-1)
		}
	}
}

// scanIn returns how long until scan has work, sleepMax if it has none.
func (qs *queues) scanIn(now time.Time) time.Duration {
	d := sleepMax
	if qs.rescan {
		d = min(d, rescanEvery)
	}
	if qs.rescanAll {
		d = min(d, max(rescanEvery, qs.scannedAll.Add(rescanAllEvery).Sub(now)))
	}
	return d
}

// look records that the queue of a host holds rows. priority is that of the first row.
func (qs *queues) look(id uint32, priority uint8) {
	q := qs.open(id)
	if len(q.ready) > 0 && priority < q.ready[0].key.Priority {
		q.ready = nil // a more urgent row was enqueued; the rows read ahead are still stored
	}
	q.more = true
	qs.push(q)
}

// take removes the next repository from the queue of a host. While lookups are parked, it returns
// only repositories whose host and key were just resolved.
func (qs *queues) take(q *queue, parked bool) (item, bool) {
	if q == nil {
		return item{}, false
	}
	if len(q.resolved) > 0 {
		it := q.resolved[0]
		q.resolved[0] = item{}
		q.resolved = q.resolved[1:]
		qs.waiting--
		return it, true
	}
	for len(q.ready) > 0 && !parked {
		it := q.ready[0]
		q.ready[0] = item{}
		q.ready = q.ready[1:]
		if !qs.flights.busy(it.did, it.key) {
			qs.flights.add(it.did, it.key)
			q.claimed++
			return it, true
		}
	}
	return item{}, false
}

// returnResolved returns the repositories that wait in memory for a permit of a host to their
// stored queues. A ban may last, and an account that moves meanwhile must not wait for its former
// host.
func (qs *queues) returnResolved(q *queue) {
	resolved := q.resolved
	q.resolved = nil
	for _, it := range resolved {
		qs.waiting--
		qs.unclaim(q)
		qs.land(it.did)
		qs.lookInto(it.key.Host)
	}
}

// land removes a DID from the DIDs in flight.
func (qs *queues) land(did string) {
	if host, anew := qs.flights.land(did); anew {
		qs.lookInto(host)
	}
}

// lookInto wakes the dispatcher because the queue of a host received rows, or kept the row of a
// task that ended.
func (qs *queues) lookInto(id uint32) {
	q := qs.open(id)
	q.more = true
	qs.push(q)
	loop.Wake(qs.kick)
}
