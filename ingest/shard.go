package ingest

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cistern/ingest/firehose"
	"cistern/loop"
	"cistern/store"
	"cistern/trace"
)

// Limits of one shard.
const (
	// queueMax bounds the events that wait for a shard. Options.QueueBytes bounds their bytes.
	queueMax = 1024
	// groupMax and groupBytesMax bound the events of one batch: at 100 µs of CPU an event, a group
	// takes 7 ms.
	groupMax      = 64
	groupBytesMax = 1 << 20
	// keptBytesMax bounds the memory of a buffered commit that an item keeps for reuse. After a
	// commit of more than keptBlocksMax blocks the item drops the memory of its proof, which is
	// proportional to the number of blocks.
	keptBytesMax  = 16 << 10
	keptBlocksMax = 64 << 10
	// localMax bounds the events that are taken from the queue before they are handled.
	localMax = 4 * groupMax
	// waitsMax bounds the batches that wait to be durable.
	waitsMax = 32
	// drainsMax bounds the draining rows that are remembered, and drainsAtOnce the rows that are
	// drained at a time, in turn with events.
	drainsMax    = 4096
	drainsAtOnce = 16

	// backlogEventsMax bounds the events of one DID that wait for a task. Waiting events may use
	// one part in parkedShare of the readers' budget, and parkedEventsMax bounds their number,
	// because events may be small.
	backlogEventsMax = 256
	parkedShare      = 2
	parkedEventsMax  = 4096
	// websBytesShare is the inverse of the part of parkedBytesMax that may wait for documents of
	// did:web: hosts of did:web may answer slowly on purpose, which must not affect other accounts.
	websBytesShare = 4
	// coalescedMax bounds the coalesced events. A mark of 16 bytes is left of each.
	coalescedMax = 64 << 10
	// answeredWithin is how fresh an answer must be for the directory to count as answering.
	answeredWithin = time.Second

	// A failed lookup is retried after a second, doubling, so a dead directory delays each DID by
	// some seconds.
	lookupsMax         = 3
	lookupsMaxAccount  = 12
	lookupsMaxMismatch = 12 // some 8 minutes
	lookupDelayBase    = time.Second
	lookupDelayMax     = time.Minute
	// refreshesMax bounds the identities that are read again later, at about 100 bytes each.
	refreshesMax    = 1024
	refreshTriesMax = 12
	dueEvery        = 200 * time.Millisecond

	// websShare is the inverse of the number of goroutines for documents of did:web, as a part of
	// Options.Lookups; they are additional, since anyone may run those hosts.
	websShare = 4
	// heavyMax bounds the repositories that are listed again or wiped at a time.
	heavyMax = 2
)

// shard handles the events of the DIDs that are assigned to it, the events of each DID in the order
// in which they were submitted (invariant 1).
type shard struct {
	r      *Runner
	queue  chan *firehose.Event
	kick   chan struct{} // inbox or drains is not empty
	parked atomic.Int64  // number of parked backlogs

	mu     sync.Mutex
	inbox  []*backlog          // mu guards: backlogs whose tasks are done
	drains map[string]struct{} // mu guards: draining rows
	missed bool                // mu guards: drains was full, and rows were left out

	// owned by run, across its calls:
	backlogs     map[string]*backlog // backlogs that are not empty
	idle         []*backlog          // empty, for reuse
	ready        []*backlog          // not parked, with something to do
	back         []*backlog
	later        []*backlog           // parked, with a task to retry
	refreshes    map[string]refresh   // documents to be read again, by DID
	refusedPairs map[string]time.Time // when a PDS was found not to be the host of a DID
	nextDue      time.Time
	answered     time.Time // when a lookup last succeeded
	local        int       // events of backlogs that are not parked
	parkedEvents int
	parkedBytes  int64
	webBytes     int64 // part of parkedBytes: backlogs that wait for documents of did:web
	coalesced    int   // marks of coalesced events
	draining     int   // backlogs with drain
	ending       bool
	items        [groupMax]item
	group        []*item // items that need the lock
	dids         []string
	marks        []marks
	traced       []trace.Path // of the events that the group has finished
}

func newShard(r *Runner) *shard {
	return &shard{
		r: r, queue: make(chan *firehose.Event, queueMax), kick: make(chan struct{}, 1),
		drains: map[string]struct{}{}, backlogs: map[string]*backlog{},
		refusedPairs: map[string]time.Time{}, refreshes: map[string]refresh{},
	}
}

// run handles events until ended is closed and all are handled, or until ctx ends. It waits neither
// for the network nor for a batch to be durable.
func (s *shard) run(ctx context.Context, ended <-chan struct{}, waits chan<- func() error) error {
	tick := time.NewTicker(dueEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		now := s.r.opts.Now()
		if !s.ending {
			s.collect(now)
			if err := s.takeDrains(); err != nil {
				return err
			}
		}
		full := s.full(now)
		for !full && s.local < localMax && s.receive() {
			full = s.full(now)
		}
		if len(s.ready) > 0 {
			if err := s.handle(ctx, waits); err != nil {
				return err
			}
			continue
		}
		if s.ending && (full || len(s.queue) == 0) {
			return nil
		}
		queue := s.queue
		if full {
			queue = nil
		}
		select {
		case e := <-queue:
			s.take(e)
		case <-s.kick:
		case <-tick.C:
		case <-ended:
			s.ending, ended = true, nil
		case <-ctx.Done():
		}
	}
	return nil
}

// receive takes an event from the queue, and reports whether there was one.
func (s *shard) receive() bool {
	select {
	case e := <-s.queue:
		s.take(e)
		return true
	default:
		return false
	}
}

func (s *shard) take(e *firehose.Event) {
	l := s.backlog(e.Frame.DID)
	if l.parked != needNothing {
		s.wait(l, e)
		return
	}
	l.events = append(l.events, e)
	s.local++
	s.enqueue(l)
}

// backlog returns the backlog of a DID, and creates it if necessary.
func (s *shard) backlog(did string) *backlog {
	l := s.backlogs[did]
	if l != nil {
		return l
	}
	if n := len(s.idle); n > 0 {
		l = s.idle[n-1]
		s.idle = s.idle[:n-1]
	} else {
		l = &backlog{shard: s}
	}
	l.did = strings.Clone(did)
	s.backlogs[l.did] = l
	return l
}

// enqueue puts a backlog into the queue of ready backlogs.
func (s *shard) enqueue(l *backlog) {
	if !l.queued && l.parked == needNothing {
		l.queued = true
		s.ready = append(s.ready, l)
	}
}

// requeue puts a backlog back if there is more to do, and drops it otherwise.
func (s *shard) requeue(l *backlog) {
	if !l.empty() {
		if !s.ending || !l.drain {
			s.enqueue(l)
		}
		return
	}
	delete(s.backlogs, l.did)
	if len(s.idle) < localMax && cap(l.events) <= backlogEventsMax &&
		cap(l.coalesced.marks) <= backlogEventsMax {
		*l = backlog{shard: s, events: l.events[:0], coalesced: coalesced{marks: l.coalesced.marks[:0]}}
		s.idle = append(s.idle, l)
	}
}

// finish removes the first event of a backlog, which is done.
func (s *shard) finish(l *backlog) {
	e := l.events[0]
	l.pop()
	s.local--
	l.forget()
	e.Release()
}

// abandon releases the memory of events that an ended run did not handle. The events will be read
// again.
func (s *shard) abandon() {
	for len(s.queue) > 0 {
		(<-s.queue).Release()
	}
	for _, l := range s.backlogs {
		for _, e := range l.events {
			e.Release()
		}
	}
	clear(s.backlogs)
	s.mu.Lock()
	s.inbox = nil
	s.mu.Unlock()
	s.idle, s.ready, s.later, s.marks = nil, nil, nil, nil
	s.local, s.parkedEvents, s.coalesced, s.draining = 0, 0, 0, 0
	s.parkedBytes, s.webBytes = 0, 0
	s.ending = false
	s.parked.Store(0)
}

// returned gives a backlog whose task is done back to the shard.
func (s *shard) returned(l *backlog) {
	s.mu.Lock()
	s.inbox = append(s.inbox, l)
	s.mu.Unlock()
	loop.Wake(s.kick)
}

// drainSoon records that a row is draining.
func (s *shard) drainSoon(did string) {
	s.mu.Lock()
	if _, known := s.drains[did]; !known && len(s.drains) >= drainsMax {
		s.missed = true
	} else {
		s.drains[did] = struct{}{}
	}
	s.mu.Unlock()
	loop.Wake(s.kick)
}

// takeDrains begins to drain some rows, in turn with events.
func (s *shard) takeDrains() error {
	s.mu.Lock()
	for did := range s.drains {
		if s.draining >= drainsAtOnce {
			break
		}
		delete(s.drains, did)
		s.startDrain(s.backlog(did))
	}
	again := s.missed && len(s.drains) == 0
	if again {
		s.missed = false
	}
	s.mu.Unlock()
	if again {
		return s.r.findDraining(s)
	}
	return nil
}

// handle makes one step for each ready DID, and writes the group of these steps.
func (s *shard) handle(ctx context.Context, waits chan<- func() error) error {
	now := s.r.opts.Now()
	s.group = s.group[:0]
	n, bytes := 0, int64(0)
	for n < len(s.ready) && n < groupMax && bytes < groupBytesMax {
		it := &s.items[n]
		it.begin(s.ready[n], now)
		n++
		if it.e != nil {
			bytes += it.e.Cost()
		}
		done, err := it.prepare()
		if err != nil {
			return err
		}
		if it.job == jobDrain {
			bytes += int64(len(it.drain.message))
		}
		if !done {
			s.group = append(s.group, it)
			it.step("write")
		}
	}
	wait, err := s.write(now, s.items[:n])
	if err != nil {
		return err
	}
	rest := copy(s.ready, s.ready[n:])
	clear(s.ready[rest:])
	s.ready = s.ready[:rest]
	for i := range s.items[:n] {
		s.after(&s.items[i])
	}
	if wait = s.endTraces(wait); wait == nil {
		return nil
	}
	select {
	case waits <- wait:
	case <-ctx.Done():
	}
	return nil
}

// after applies the outcome of an item to its backlog.
func (s *shard) after(it *item) {
	l := it.backlog
	l.queued = false
	if it.outcome < outcomes && it.job != jobNothing {
		s.r.tally.events[it.job][it.outcome].Inc()
	}
	switch {
	case it.outcome == outcomePark:
		it.step("parked")
		it.end()
		s.park(l, it.need)
		return
	case it.outcome == outcomeAgain, it.job == jobNothing:
	case it.job == jobCoalesced:
		s.coalesced -= len(l.coalesced.marks)
		clear(l.coalesced.marks)
		l.coalesced = coalesced{marks: l.coalesced.marks[:0]}
	case it.e != nil:
		if it.outcome == outcomeApplied {
			it.e.Source.Healthy() // the source sends useful events again
		}
		if it.outcome == outcomeApplied || it.outcome == outcomeSkipped {
			it.e.Confirm(it.outcome == outcomeApplied, it.now)
		}
		s.takeTrace(it)
		s.finish(l)
	default:
		l.forget()
	}
	it.end()
	s.requeue(l)
}

// marks are the seqs of one source's events that a group has finished.
type marks struct {
	src  *firehose.Source
	seqs []int64
}

// note records that an event of the group is done.
func (s *shard) note(m mark) {
	for i := range s.marks {
		if s.marks[i].src == m.src {
			s.marks[i].seqs = append(s.marks[i].seqs, m.seq)
			return
		}
	}
	if n := len(s.marks); n < cap(s.marks) {
		s.marks = s.marks[:n+1]
		s.marks[n].src, s.marks[n].seqs = m.src, append(s.marks[n].seqs[:0], m.seq)
		return
	}
	s.marks = append(s.marks, marks{m.src, []int64{m.seq}})
}

// write decides the items of a group under the locks of their rows, and commits the changes in one
// batch. wait waits for that batch; it is nil if there was nothing to write.
func (s *shard) write(now time.Time, items []item) (wait func() error, err error) {
	slices.SortFunc(s.group,
		func(a, b *item) int { return strings.Compare(a.backlog.did, b.backlog.did) })
	s.dids = s.dids[:0]
	for _, it := range s.group {
		s.dids = append(s.dids, it.backlog.did)
	}
	return s.r.update(now, s.dids, func(w *writing, rows []store.Repo) ([]marks, error) {
		for i, it := range s.group {
			if err := it.decide(w, &rows[i]); err != nil {
				return nil, err
			}
		}
		return s.mark(items), nil
	})
}

// mark returns the events that the items have finished, by source.
func (s *shard) mark(items []item) []marks {
	s.marks = s.marks[:0]
	for i := range items {
		it := &items[i]
		switch {
		case it.outcome >= outcomes || it.job == jobNothing:
		case it.job == jobCoalesced:
			for _, m := range it.backlog.coalesced.marks {
				s.note(m)
			}
		case it.e != nil:
			s.note(mark{it.e.Source, it.e.Number})
		}
	}
	return s.marks
}
