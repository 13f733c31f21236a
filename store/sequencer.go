package store

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// sequencer assigns ids to events and values to counters as part of committing, so that the order
// of ids is the order of visibility. It publishes events that are durable.
type sequencer struct {
	// mu is held from assigning ids until the batch is applied, so that batches reach the
	// write-ahead log in the order of their ids.
	mu     sync.Mutex
	counts counts // mu guards
	next   uint64 // mu guards: next event id
	time   int64  // mu guards: time of the newest event
	// cursors are the firehose cursors as last written, by source. mu guards.
	cursors map[string]int64
	// postings are those of the newest events. mu guards.
	postings postings

	tail atomic.Uint64 // oldest event id kept
	head atomic.Uint64 // newest durable event id

	headMu  sync.Mutex
	changed chan struct{} // headMu guards; closed and replaced when head moves
}

func (s *Store) loadCounts() error {
	for i, name := range countNames {
		err := get(s.db, countKey(name), func(v []byte) (err error) {
			s.seq.counts[i], err = decodeCount(name, v)
			return err
		})
		if err != nil && !errors.Is(err, ErrNotFound) { // a new store has no counters yet
			return err
		}
	}
	return nil
}

func (s *Store) loadLog() error {
	next, err := s.metaNumber(s.db, metaNext, 1)
	if err != nil {
		return err
	}
	t, err := s.metaNumber(s.db, metaTime, 0)
	if err != nil {
		return err
	}
	tail, err := s.metaNumber(s.db, metaTail, 1)
	if err != nil {
		return err
	}
	s.seq.next, s.seq.time, s.seq.changed = next, int64(t), make(chan struct{})
	s.seq.tail.Store(tail)
	s.recent.from = next
	s.seq.head.Store(next - 1)
	return nil
}

// commit assigns b its ids and counter values and applies it. Its rows are visible to reads when
// commit returns; wait returns when they are durable, and publishes the events.
func (s *Store) commit(b *Batch) (wait func() error, err error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	if !b.inside {
		if !b.impatient {
			s.enterWrites()
		} else if s.frost.writes.tryEnter() != nil {
			return nil, errors.Join(ErrFrozen, b.b.Close())
		}
		defer s.leaveWrites()
	}
	s.seq.mu.Lock()
	head, err := s.sequence(b)
	number := uint64(0)
	if err == nil {
		// From here on the batch is in the write-ahead log's queue. A crash before the sync loses
		// the whole batch and every later batch; its ids were not published. An empty batch gets no
		// number: its wait returns at once and implies nothing about earlier batches.
		if !b.b.Empty() {
			number = s.unsettled.add(b.gated)
		}
		err = s.guard(func() error { return s.db.ApplyNoSyncWait(b.b, pebble.Sync) })
	}
	if err == nil {
		s.recent.add(b, s.seq.next)
		s.buffers.apply(b.buffers)
		s.caches.apply(b)
		s.garbage.add(b.abandoned)
		s.enqueuedHosts(b)
	}
	s.seq.mu.Unlock()
	if err != nil {
		s.fail(err) // the assigned ids did not reach the log
		return nil, s.failure
	}
	if b.due != noDue {
		s.retries.added(b.due)
	}
	s.opts.Step("applied")
	rows := b.b // keep only the engine's batch: a caller may wait for many batches at once
	return func() error {
		if err := rows.SyncWait(); err != nil {
			s.fail(err)
			return s.failure
		}
		s.publish(head, s.unsettled.settle(number))
		s.opts.Step("synced")
		return rows.Close()
	}, nil
}

// sequence adds to the batch the ids, counters and cursors that depend on its place in the order.
// mu is held.
func (s *Store) sequence(b *Batch) (head uint64, err error) {
	q := &s.seq
	now := s.now().UnixMicro()
	for i := range b.entries {
		e := &b.entries[i]
		e.id = q.next
		e.Time = max(now, q.time+1)
		q.next += e.ids()
		q.time = e.Time + int64(e.ids()) - 1
		b.deltas[countEvents] += int64(e.ids())
		if err := s.codec.encodeTo(&b.row, &e.entryV1); err != nil {
			return 0, err
		}
		key := eventKey(b.key[:0], e.id)
		if err := b.b.Set(key, b.row.Bytes(), nil); err != nil {
			return 0, err
		}
		s.growth.wrote(key, b.row.Bytes())
		if err := q.postings.addEntry(b.b, e); err != nil {
			return 0, err
		}
	}
	if err := q.postings.pass(b.b, q.next); err != nil {
		return 0, err
	}
	if !s.ephemeral { // else they were counted when they were written
		s.growth.superseded.Add(int64(len(b.superseded)))
	}
	for _, d := range b.superseded {
		id := q.next
		if d.entry < len(b.entries) {
			id = b.entries[d.entry].id
		}
		if err := b.b.Set(supersededKey(b.key[:0], id, d.ordinal, d.block), nil, nil); err != nil {
			return 0, err
		}
	}
	if len(b.entries) > 0 {
		if err := errors.Join(setMetaNumber(b.b, metaNext, q.next),
			setMetaNumber(b.b, metaTime, uint64(q.time))); err != nil {
			return 0, err
		}
	}
	if err := s.markDropped(b); err != nil {
		return 0, err
	}
	for _, m := range b.cursors {
		if err := s.mark(b, m); err != nil {
			return 0, err
		}
	}
	if err := s.sequenceTotals(b); err != nil {
		return 0, err
	}
	for i, d := range b.deltas {
		if d == 0 {
			continue
		}
		q.counts[i] += d
		if q.counts[i] < 0 {
			return 0, fmt.Errorf("counter %s would be %d: %w", countNames[i], q.counts[i], ErrCorrupt)
		}
		if err := b.b.Set(countKey(countNames[i]), encodeCount(q.counts[i]), nil); err != nil {
			return 0, err
		}
	}
	if err := s.countHosts(b); err != nil {
		return 0, err
	}
	if b.b.Empty() {
		// nothing to sync, so that its end implies nothing about the batches before it
		return 0, nil
	}
	return q.next - 1, nil
}

// publish makes the events up to head readable: they are durable if any later event is. wake wakes
// readers even if head does not move.
func (s *Store) publish(head uint64, wake bool) {
	q := &s.seq
	q.headMu.Lock()
	defer q.headMu.Unlock()
	if head <= q.head.Load() && !wake {
		return
	}
	q.head.Store(max(head, q.head.Load()))
	close(q.changed)
	q.changed = make(chan struct{})
}

// Head returns the newest durable event id, 0 before the first.
func (s *Store) Head() uint64 { return s.seq.head.Load() }

// Tail returns the oldest event id that the log keeps; Head+1 if it keeps none.
func (s *Store) Tail() uint64 { return s.seq.tail.Load() }

// Changed returns a channel that is closed when Head moves after the call, or when ReadLog may pass
// the entry that it stopped before.
func (s *Store) Changed() <-chan struct{} {
	s.seq.headMu.Lock()
	defer s.seq.headMu.Unlock()
	return s.seq.changed
}
