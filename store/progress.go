package store

import (
	"errors"
	"fmt"
)

// Progress is the state of a source, apart from its cursor, by which a later connection detects
// that messages were missed in between. It may be older than the cursor, never newer.
type Progress struct {
	// At is a time, in unix microseconds, until which all messages of the source are known to be
	// read.
	At int64 `cbor:"1,keyasint,omitempty"`
	// Dense is a score of how likely the source numbers its messages consecutively (package ingest,
	// denseMax).
	Dense int64 `cbor:"2,keyasint,omitempty"`
	// Owed means that messages were missed and the comparison of the source's listing is not
	// requested yet.
	Owed bool `cbor:"3,keyasint,omitempty"`
}

// PutProgress writes the progress of a source.
func (b *control) PutProgress(source string, p Progress) {
	b.put(progressKey(source), p)
}

// DropProgress deletes the progress of a source.
func (b *control) DropProgress(source string) { b.delete(progressKey(source)) }

// Progress returns the progress of a source as last written; ok is false if no progress was
// written.
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
