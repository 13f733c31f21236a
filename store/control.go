package store

import "github.com/cockroachdb/pebble/v2"

// control is the part of a batch that writes rows of no repository: the cursors, sources, marks and
// requests from which the daemon continues. Its methods are in the files of these rows.
type control struct {
	writer
	cursors   []cursorMark
	unsourced bool // the batch drops a source
}

// writer adds rows to a batch of the engine, and remembers the first error.
type writer struct {
	s   *Store
	b   *pebble.Batch
	key []byte // scratch
	err error
}

func (w *writer) fail(err error) {
	if w.err == nil && err != nil {
		w.err = err
	}
}

func (w *writer) set(key, value []byte) { w.fail(w.b.Set(key, value, nil)) }
func (w *writer) delete(key []byte)     { w.fail(w.b.Delete(key, nil)) }

// put encodes a row and adds it.
func (w *writer) put(key []byte, row any) {
	v, err := w.s.codec.encode(row)
	w.fail(err)
	w.set(key, v)
}
