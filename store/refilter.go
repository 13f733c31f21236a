package store

import "fmt"

// RefilterCursor is the position of the pass that adapts repositories to the filter in force. The
// zero value starts the pass; a running pass starts over.
type RefilterCursor struct {
	Begun bool `cbor:"1,keyasint,omitempty"`
	// last DID that the round has handled; "" at its start
	After string `cbor:"2,keyasint,omitempty"`
}

// PutRefilterCursor writes the cursor of the pass. SetFilter writes the zero value.
func (b *control) PutRefilterCursor(c RefilterCursor) {
	b.put(metaKey(metaRefilter), c)
}

// DropRefilterCursor ends the pass.
func (b *control) DropRefilterCursor() { b.delete(metaKey(metaRefilter)) }

// LockRefilterCursor gives the caller the sole right to write the cursor of the pass until unlock.
func (s *Store) LockRefilterCursor() (unlock func()) {
	return s.Lock(string(metaKey(metaRefilter)))
}

// RefilterCursor returns the cursor of the pass as last written; ok is false if no pass is
// requested.
func (s *Store) RefilterCursor() (c RefilterCursor, ok bool, err error) {
	return s.refilterCursor(s.db)
}

func (s *Store) refilterCursor(r reader) (c RefilterCursor, ok bool, err error) {
	ok, err = s.metaRow(r, metaRefilter, &c)
	if !c.Begun && c.After != "" {
		err = fmt.Errorf("refilter cursor %+v: %w", c, ErrCorrupt)
	}
	return c, ok, err
}
