package store

import (
	"context"
	"errors"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// enqueueLease is how many enqueue ids are reserved at a time, so that an id is never used twice
// although assigning one writes nothing.
const enqueueLease = 1 << 20

// lowMax bounds the fronts remembered, of about 40 bytes each: those of 32,768 hosts are 5 MiB.
const lowMax = 128 << 10

type enqueuer struct {
	mu    sync.Mutex
	next  uint64 // mu guards
	limit uint64 // mu guards: ids below it are reserved on disk
	// open has the ids assigned to batches that are not applied yet. mu guards.
	open map[uint64]struct{}
	// low has, for each host and priority, an id below which there is no row and will be none:
	// deleted rows pile up at the front of a queue, and a scan must not step over them. Rows enter
	// a queue with fresh ids only. mu guards.
	low map[lowKey]uint64
}

type lowKey struct {
	host     uint32
	priority uint8
}

func (s *Store) loadEnqueue() error {
	n, err := s.metaNumber(s.db, metaEnqueue, 1)
	s.queue.next, s.queue.limit, s.queue.low, s.queue.open = n, n,
		map[lowKey]uint64{}, map[uint64]struct{}{}
	return err
}

// nextEnqueue assigns the next enqueue id, which is open until settled.
func (s *Store) nextEnqueue() (uint64, error) {
	q := &s.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.next == q.limit {
		b := s.db.NewBatch()
		err := errors.Join(setMetaNumber(b, metaEnqueue, q.limit+enqueueLease), s.apply(b, pebble.Sync))
		if err != nil {
			return 0, err
		}
		q.limit += enqueueLease
	}
	q.open[q.next] = struct{}{}
	q.next++
	return q.next - 1, nil
}

// settle closes ids: no more rows will appear with them.
func (q *enqueuer) settle(ids []uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, id := range ids {
		delete(q.open, id)
	}
}

// floor returns an id below which no row will appear that a new iterator does not see.
func (q *enqueuer) floor() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	floor := q.next
	for id := range q.open {
		floor = min(floor, id)
	}
	return floor
}

// ScanPending calls fn for the rows of the pending queue, in ascending order of host id beginning
// with host from, and for each host by priority and then by enqueue id, until fn returns false. It
// does not wrap.
func (s *Store) ScanPending(
	ctx context.Context, from uint32, fn func(k PendingKey, did string) (more bool),
) error {
	floor := s.queue.floor() // must precede the iterator
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{spacePending},
		UpperBound: spaceEnd(spacePending)})
	if err != nil {
		return engineError(err)
	}
	err = s.scanPending(ctx, it, floor, from, fn)
	return errors.Join(err, engineError(it.Close()))
}

// scanPending scans queue after queue. Within a host it seeks each priority in turn, so that each
// queue is entered at its front; a seek finds the next host.
func (s *Store) scanPending(
	ctx context.Context, it *pebble.Iterator, floor uint64, from uint32,
	fn func(k PendingKey, did string) (more bool),
) error {
	for q := (lowKey{host: from}); ; {
		more, err := s.scanQueue(ctx, it, floor, q, fn)
		if err != nil || !more {
			return err
		}
		switch {
		case q.priority < 1<<8-1:
			q.priority++
		case q.host < 1<<32-1:
			q = lowKey{host: q.host + 1}
		default:
			return nil
		}
		if q.priority > 0 && q.priority <= PriorityDiscovery {
			continue
		}
		if !it.SeekGE(pendingKey(nil, PendingKey{Host: q.host, Priority: q.priority})) {
			return nil
		}
		k, err := parsePendingKey(it.Key())
		if err != nil {
			return err
		}
		q = lowKey{k.Host, k.Priority}
	}
}

// scanQueue calls fn for the rows of one host and priority, and remembers its front.
func (s *Store) scanQueue(
	ctx context.Context, it *pebble.Iterator, floor uint64, q lowKey,
	fn func(k PendingKey, did string) (more bool),
) (more bool, err error) {
	limit := pendingKey(nil, PendingKey{Host: q.host, Priority: q.priority, Enqueue: 1<<64 - 1})
	met := false
	for state := it.SeekGEWithLimit(pendingKey(nil, s.queue.from(q)),
		limit); state == pebble.IterValid; state = it.NextWithLimit(limit) {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		k, err := parsePendingKey(it.Key())
		if err != nil {
			return false, err
		}
		if (lowKey{k.Host, k.Priority}) != q {
			break // an iterator may ignore the limit
		}
		if !met {
			met = true
			s.queue.remember(q, min(k.Enqueue, floor))
		}
		did, err := parseDID(it.Value())
		if err != nil {
			return false, err
		}
		if !fn(k, did) {
			return false, nil
		}
	}
	if it.Error() != nil {
		return false, nil // Close returns the error
	}
	if !met {
		s.queue.remember(q, floor)
	}
	return true, nil
}

// from returns the first key that a queue may have.
func (q *enqueuer) from(k lowKey) PendingKey {
	q.mu.Lock()
	defer q.mu.Unlock()
	return PendingKey{Host: k.host, Priority: k.priority, Enqueue: q.low[k]}
}

// remember records that no row stands before id in its queue.
func (q *enqueuer) remember(k lowKey, id uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.low) >= lowMax {
		clear(q.low)
	}
	q.low[k] = id
}
