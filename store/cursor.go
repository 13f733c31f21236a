package store

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// cursorMark is a change of the cursor of one source by a batch.
type cursorMark struct {
	source string
	at     func() int64 // nil drops the cursor
}

// SetCursor makes the batch write the cursor of a firehose source: the last seq up to which every
// event is in this batch or an earlier batch. at returns that seq. It is called while the batch
// gets its place in the order of batches, so that no event up to this seq is in a later batch. at
// must neither block nor call the store. A result that is negative, or not above the cursor, writes
// nothing.
func (b *control) SetCursor(source string, at func() int64) {
	b.cursors = append(b.cursors, cursorMark{source, at})
}

// DropCursor deletes the cursor of a source.
func (b *control) DropCursor(source string) {
	b.cursors = append(b.cursors, cursorMark{source, nil})
}

// mark adds a change of a cursor to a batch that is being sequenced. The sequencer's mutex is held.
func (s *Store) mark(b *Batch, m cursorMark) error {
	q := &s.seq
	if m.at == nil {
		delete(q.cursors, m.source)
		return b.b.Delete(cursorKey(m.source), nil)
	}
	seq := m.at()
	if last, ok := q.cursors[m.source]; seq < 0 || ok && seq <= last {
		return nil
	}
	q.cursors[m.source] = seq
	return b.b.Set(cursorKey(m.source), binary.BigEndian.AppendUint64(nil, uint64(seq)), nil)
}

// Cursor returns the cursor of a source as last written; ok is false if no cursor was written.
func (s *Store) Cursor(source string) (seq int64, ok bool, err error) {
	err = get(s.db, cursorKey(source), func(v []byte) (err error) {
		seq, err = parseCursor(v)
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("cursor of %s: %w", source, err)
	}
	return seq, true, nil
}

func parseCursor(v []byte) (int64, error) {
	if len(v) != 8 || v[0]&0x80 != 0 {
		return 0, fmt.Errorf("cursor %x: %w", v, ErrCorrupt)
	}
	return int64(binary.BigEndian.Uint64(v)), nil
}

// loadCursors reads the last value of each cursor, since a cursor never moves backwards.
func (s *Store) loadCursors() error {
	s.seq.cursors = map[string]int64{}
	return scan(s.db, []byte{spaceCursor}, spaceEnd(spaceCursor),
		func(key, value []byte) (bool, error) {
			seq, err := parseCursor(value)
			s.seq.cursors[string(key[1:])] = seq
			return true, err
		})
}
