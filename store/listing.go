package store

import (
	"encoding/binary"
	"fmt"
)

// A listing row is version(1) and then, for each op: flags(1), the number of bytes that its path
// shares with the path before (uvarint; 0 for the first), the length of the rest (uvarint), the
// rest, and with flag listingBlock the block number (uvarint). Without the flag the number is one
// more than that of the op before. The first op of a row has the flag.
const listingBlock = 1

// listingRowBytes is the size at which a listing row is closed: small enough that a
// cursor in the middle of a listing skips little, large enough to compress.
const listingRowBytes = 16 << 10

type listingOp struct {
	path  []byte
	block uint32
}

func appendListingOp(dst []byte, prev, path []byte, block uint32, explicit bool) []byte {
	n := 0
	for n < len(prev) && n < len(path) && prev[n] == path[n] {
		n++
	}
	var flags byte
	if explicit {
		flags = listingBlock
	}
	dst = binary.AppendUvarint(append(dst, flags), uint64(n))
	dst = binary.AppendUvarint(dst, uint64(len(path)-n))
	dst = append(dst, path[n:]...)
	if explicit {
		dst = binary.AppendUvarint(dst, uint64(block))
	}
	return dst
}

// listingWriter gathers ops into one row after the other.
type listingWriter struct {
	row   []byte
	first uint32 // first op of the open row
	next  uint32 // next op
	prev  []byte // path of the previous op in the row
	block uint32 // its block
}

// begin starts a new row at the op of that number.
func (w *listingWriter) begin(at uint32) {
	w.row, w.prev, w.first, w.next = append(w.row[:0], valueVersion), w.prev[:0], at, at
}

// add appends an op and reports whether the row is full: the caller then writes it under first and
// calls begin(next).
func (w *listingWriter) add(path []byte, block uint32) (full bool) {
	w.row = appendListingOp(w.row, w.prev, path, block, w.empty() || block != w.block+1)
	w.prev = append(w.prev[:0], path...)
	w.block = block
	w.next++
	return len(w.row) >= listingRowBytes
}

func (w *listingWriter) empty() bool { return w.next == w.first }

// listingReader walks the ops of one listing row.
type listingReader struct {
	rest []byte
	op   listingOp
}

func newListingReader(row []byte) (listingReader, error) {
	if len(row) == 0 || row[0] != valueVersion {
		return listingReader{}, fmt.Errorf("listing row: version byte %.1x: %w", row, ErrCorrupt)
	}
	return listingReader{rest: row[1:]}, nil
}

// next moves to the next op; path is valid until the next call.
func (l *listingReader) next() (bool, error) {
	if len(l.rest) == 0 {
		return false, nil
	}
	flags := l.rest[0]
	b := l.rest[1:]
	shared, n := binary.Uvarint(b)
	if n <= 0 {
		return false, fmt.Errorf("listing op: %w", ErrCorrupt)
	}
	b = b[n:]
	length, n := binary.Uvarint(b)
	if n <= 0 || flags&^listingBlock != 0 || shared > uint64(len(l.op.path)) ||
		length > uint64(len(b)-n) {
		return false, fmt.Errorf("listing op: %w", ErrCorrupt)
	}
	b = b[n:]
	l.op.path = append(l.op.path[:shared], b[:length]...)
	l.rest = b[length:]
	l.op.block++
	if flags&listingBlock != 0 {
		block, n := binary.Uvarint(l.rest)
		if n <= 0 || block > 1<<32-1 {
			return false, fmt.Errorf("listing op: %w", ErrCorrupt)
		}
		l.op.block, l.rest = uint32(block), l.rest[n:]
	}
	return true, nil
}
