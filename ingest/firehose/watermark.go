package firehose

import "sync"

// tracker knows which events of one source are still being handled (invariant 1). Its mark is the
// seq up to which all are done.
//
// An event is done because it was skipped, or because it is in a batch. In the second case finish
// is called by the closure given to store.Batch.SetCursor, which runs while the batch gets its
// place in the log: another batch that counts the event as done comes later, so that a crash that
// loses the event loses that cursor too.
//
// The tracker numbers events itself, and never assigns a number twice: after a host has begun a new
// count (reset), its older events cannot be mistaken for newer ones. Its memory is that of the
// events in flight: an event that takes long holds back the mark, and nothing else.
type tracker struct {
	mu      sync.Mutex
	ring    []inflight // len is a power of two, or zero
	head, n int        // of the ring; entries are in the order of their numbers
	done    int        // of the n
	numbers int64      // assigned so far
	newest  int64      // seq read last, -1 for none
}

// inflight is an event that was begun. Its entry stays until it and all events before it are done,
// or until half of the ring is done.
type inflight struct {
	number int64
	before int64 // seq of the event read before it
	done   bool
}

func newTracker(cursor int64) *tracker { return &tracker{newest: cursor} }

// begin records an event that was read and returns its number, from 1. Seqs must rise; ok is false
// for one that does not.
func (t *tracker) begin(seq int64) (number int64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if seq <= t.newest {
		return 0, false
	}
	before := t.newest
	if before < 0 {
		before = seq - 1 // events before the first that a source sends do not concern us
	}
	if t.n == len(t.ring) {
		t.makeRoom()
	}
	t.numbers++
	*t.at(t.n) = inflight{number: t.numbers, before: before}
	t.n++
	t.newest = seq
	return t.numbers, true
}

// finish marks events as done, by their numbers, and returns the mark, -1 if there is none.
func (t *tracker) finish(numbers ...int64) (mark int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, number := range numbers {
		if e := t.find(number); e != nil && !e.done {
			e.done = true
			t.done++
		}
	}
	for t.n > 0 && t.at(0).done {
		t.head = (t.head + 1) & (len(t.ring) - 1)
		t.n--
		t.done--
	}
	return t.markLocked()
}

// mark returns the seq up to which all events are done, -1 if there is none.
func (t *tracker) mark() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.markLocked()
}

func (t *tracker) markLocked() int64 {
	if t.n > 0 {
		return t.at(0).before
	}
	return t.newest
}

// last returns the newest seq that was begun, or the cursor, -1 if there is none. While the process
// lives, reading continues behind it: events in flight need not be read again.
func (t *tracker) last() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.newest
}

// waiting returns the number of events begun and not done.
func (t *tracker) waiting() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n - t.done
}

// reset begins anew behind cursor, -1 for none. It drops the events in flight: finishing them does
// nothing.
func (t *tracker) reset(cursor int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.head, t.n, t.done, t.newest = 0, 0, 0, cursor
}

func (t *tracker) at(i int) *inflight { return &t.ring[(t.head+i)&(len(t.ring)-1)] }

// find returns the entry of a number, nil if it has none any more. Entries are in order, and mostly
// without gaps.
func (t *tracker) find(number int64) *inflight {
	if t.n == 0 || number < t.at(0).number {
		return nil
	}
	// The distance of an entry from the first or the last one is at most the distance of their
	// numbers.
	low := max(0, t.n-1-int(t.numbers-number))
	high := int(min(int64(t.n-1), number-t.at(0).number))
	for low <= high {
		i := (low + high) / 2
		switch e := t.at(i); {
		case e.number == number:
			return e
		case e.number < number:
			low = i + 1
		default:
			high = i - 1
		}
	}
	return nil
}

// makeRoom removes the entries that are done, and makes room for as many events again as remain, so
// that the cost is shared by the events that fill it.
func (t *tracker) makeRoom() {
	size := 64
	for size < 2*(t.n-t.done) {
		size *= 2
	}
	ring := make([]inflight, size)
	kept := 0
	for i := range t.n {
		if e := t.at(i); !e.done {
			ring[kept] = *e
			kept++
		}
	}
	t.ring, t.head, t.n, t.done = ring, 0, kept, 0
}
