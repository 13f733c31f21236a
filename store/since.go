package store

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// entryTimeV1 is the part of entryV1 that FirstSince reads: the ops of an entry may be many.
type entryTimeV1 struct {
	Time int64 `cbor:"2,keyasint"`
}

// FirstSince returns the id of the first event kept whose time, in unix microseconds, is t or
// later, whether readers may see the event or not. It is Head+1 if all events are
// earlier. It reads at most 65 rows, because times rise with ids.
func (s *Store) FirstSince(t int64) (id uint64, err error) {
	head := s.Head()
	// As in readLog: the view has all events from the tail on.
	v, err := s.view()
	if err != nil {
		return 0, err
	}
	tail := s.Tail()
	head = max(head, tail-1)
	it, err := v.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceEvent}, UpperBound: spaceEnd(spaceEvent)})
	if err != nil {
		return 0, errors.Join(engineError(err), v.close())
	}
	id, err = firstSince(s.codec, it, tail, head, t)
	return id, errors.Join(err, engineError(it.Close()), v.close())
}

// firstSince searches the entries of ids tail to head. Entries before low begin before t, and
// entries from high on do not; from and begun are the id and the time of the last entry before low.
func firstSince(c codec, it *pebble.Iterator, tail, head uint64, t int64) (uint64, error) {
	low, high := tail, head+1
	from, begun := uint64(0), int64(0)
	for low < high {
		middle := low + (high-low)/2
		if !it.SeekLT(eventKey(nil, middle+1)) {
			return 0, errors.Join(engineError(it.Error()), fmt.Errorf("event %d is missing: %w", middle, ErrCorrupt))
		}
		id, err := parseEventKey(it.Key())
		if err != nil {
			return 0, err
		}
		var e entryTimeV1
		if err := c.decode(it.Value(), &e); err != nil {
			return 0, fmt.Errorf("event %d: %w", id, err)
		}
		if e.Time >= t {
			high = id
		} else {
			low, from, begun = middle+1, id, e.Time
		}
	}
	if from == 0 {
		return high, nil
	}
	// The events of an entry are a microsecond apart.
	return min(high, from+uint64(t-begun)), nil
}
