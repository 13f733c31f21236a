package store

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// entryTimeV1 is the part of entryV1 that FirstSince and TimeOf read: the ops of an entry may be
// many.
type entryTimeV1 struct {
	Time int64 `cbor:"2,keyasint"`
}

// TimeOf returns the time of the event with an id, in unix microseconds, whether readers may see
// the event or not. For an id below the tail it is that of the tail. The error is ErrNotFound if
// the log ends before the id. It reads one row.
func (s *Store) TimeOf(id uint64) (us int64, err error) {
	if id > s.Head() {
		return 0, ErrNotFound
	}
	v, err := s.view()
	if err != nil {
		return 0, err
	}
	id = max(id, s.Tail())
	it, err := v.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceEvent},
		UpperBound: spaceEnd(spaceEvent)})
	if err != nil {
		return 0, errors.Join(engineError(err), v.close())
	}
	from, us, err := entryOf(s.codec, it, id)
	return us + int64(id-from), errors.Join(err, engineError(it.Close()), v.close())
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
	it, err := v.NewIter(&pebble.IterOptions{
		LowerBound: []byte{spaceEvent}, UpperBound: spaceEnd(spaceEvent)})
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
		id, time, err := entryOf(c, it, middle)
		if err != nil {
			return 0, err
		}
		if time >= t {
			high = id
		} else {
			low, from, begun = middle+1, id, time
		}
	}
	if from == 0 {
		return high, nil
	}
	// The events of an entry are a microsecond apart.
	return min(high, from+uint64(t-begun)), nil
}

// entryOf returns the id and the time of the first event of the entry that has the event id.
func entryOf(c codec, it *pebble.Iterator, id uint64) (first uint64, us int64, err error) {
	if !it.SeekLT(eventKey(nil, id+1)) {
		return 0, 0, errors.Join(engineError(it.Error()),
			fmt.Errorf("event %d is missing: %w", id, ErrCorrupt))
	}
	first, err = parseEventKey(it.Key())
	if err != nil {
		return 0, 0, err
	}
	var e entryTimeV1
	if err := c.decode(it.Value(), &e); err != nil {
		return 0, 0, fmt.Errorf("event %d: %w", first, err)
	}
	return first, e.Time, nil
}
