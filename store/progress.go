package store

import (
	"errors"
	"fmt"
)

// Progress is what is remembered of a source beside its cursor, so that a later connection can tell whether messages
// were missed in between. It may be older than the cursor, never newer.
type Progress struct {
	// At is a time, in unix microseconds: all that the source sent until then was read, as far as is known.
	At int64 `cbor:"1,keyasint,omitempty"`
	// Dense says how sure it is that the source gives consecutive numbers to its messages, as package ingest counts.
	Dense int64 `cbor:"2,keyasint,omitempty"`
	// Owed says that messages were missed and that nothing has asked yet for the source's listing to be compared.
	Owed bool `cbor:"3,keyasint,omitempty"`
}

// PutProgress remembers the progress of a source.
func (b *Batch) PutProgress(source string, p Progress) {
	v, err := b.s.codec.encode(p)
	b.fail(err)
	b.set(progressKey(source), v)
}

// DropProgress forgets the progress of a source.
func (b *Batch) DropProgress(source string) { b.delete(progressKey(source)) }

// Progress is the progress of a source as last written; ok is false if there is none.
func (s *Store) Progress(source string) (p Progress, ok bool, err error) {
	err = get(s.db, progressKey(source), func(v []byte) error { return s.codec.decode(v, &p) })
	if errors.Is(err, ErrNotFound) {
		return Progress{}, false, nil
	}
	if err != nil {
		return Progress{}, false, fmt.Errorf("progress of %s: %w", source, err)
	}
	return p, true, nil
}
