package store

import (
	"encoding/binary"
	"fmt"

	"cistern/ingest/repo"

	"github.com/fxamacker/cbor/v2"
)

// valueVersion is the first byte of every encoded value. Values of another version are
// refused, never guessed at.
const valueVersion = 1

// codec encodes row values as deterministic CBOR behind the version byte.
type codec struct {
	enc cbor.EncMode
	dec cbor.DecMode
}

func newCodec() (codec, error) {
	enc, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		return codec{}, err
	}
	// What the encoder lets through has to be readable: it does not look at text.
	dec, err := cbor.DecOptions{MaxArrayElements: entryOpsMax, UTF8: cbor.UTF8DecodeInvalid}.DecMode()
	return codec{enc: enc, dec: dec}, err
}

func (c codec) encode(v any) ([]byte, error) {
	b, err := c.enc.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return append([]byte{valueVersion}, b...), nil
}

func (c codec) decode(b []byte, v any) error {
	if len(b) == 0 || b[0] != valueVersion {
		return fmt.Errorf("decode %T: version byte %.1x: %w", v, b, ErrCorrupt)
	}
	if err := c.dec.Unmarshal(b[1:], v); err != nil {
		return fmt.Errorf("decode %T: %w: %w", v, err, ErrCorrupt)
	}
	return nil
}

// recordRow is recordV1: version(1) flags(1) block(4) digest(32) rev. It is raw bytes,
// for there are as many as there are records.
type recordRow struct {
	hidden bool
	block  uint32
	cid    repo.CID
	rev    []byte
}

const (
	recordRowBytes = 1 + 1 + blockBytes + 32
	recordHidden   = 1 // flag: the path is a legal MST key and no valid collection/rkey
)

func (r recordRow) append(dst []byte) []byte {
	var flags byte
	if r.hidden {
		flags |= recordHidden
	}
	dst = binary.BigEndian.AppendUint32(append(dst, valueVersion, flags), r.block)
	return append(append(dst, r.cid[:]...), r.rev...)
}

func parseRecordRow(b []byte) (recordRow, error) {
	if len(b) < recordRowBytes || b[0] != valueVersion || b[1]&^recordHidden != 0 {
		return recordRow{}, fmt.Errorf("record row %x: %w", b, ErrCorrupt)
	}
	return recordRow{hidden: b[1]&recordHidden != 0, block: binary.BigEndian.Uint32(b[2:]),
		cid: repo.CID(b[6:recordRowBytes]), rev: b[recordRowBytes:]}, nil
}

// entryKind is what one row of the log holds.
type entryKind uint8

const (
	entryCommit   entryKind = 1 + iota // Ops stand in the entry
	entryImport                        // Count ops stand in the listing of Ordinal
	entryAccount                       // Status
	entryIdentity                      // Handle, PDS
)

// entryV1 is one row of the log. It takes as many ids as it has ops, at least one.
type entryV1 struct {
	Kind    entryKind `cbor:"1,keyasint"`
	Time    int64     `cbor:"2,keyasint"`
	DID     []byte    `cbor:"3,keyasint"` // binary form
	Live    bool      `cbor:"4,keyasint,omitempty"`
	Rev     string    `cbor:"5,keyasint,omitempty"`
	Ordinal Ordinal   `cbor:"6,keyasint,omitempty"`
	Count   uint32    `cbor:"7,keyasint,omitempty"`
	Ops     []entryOp `cbor:"8,keyasint,omitempty"`
	Status  Status    `cbor:"9,keyasint,omitempty"`
	Handle  string    `cbor:"10,keyasint,omitempty"`
	PDS     string    `cbor:"11,keyasint,omitempty"`
}

// entryOpsMax bounds the ops of one entry, and so of one Apply: the decoder refuses more. A
// million ops are some 50 MB, far beyond what one batch should hold.
const entryOpsMax = 1 << 20

// entryOp is one record operation. Its CID is the hash of the block, so it is not kept.
type entryOp struct {
	_      struct{} `cbor:",toarray"`
	Action Action
	Path   []byte
	Block  uint32
}

// ids is the number of event ids the entry takes.
func (e *entryV1) ids() uint64 {
	switch e.Kind {
	case entryCommit:
		return uint64(len(e.Ops))
	case entryImport:
		return uint64(e.Count)
	}
	return 1
}

// A listing row is version(1) and then, for each op: flags(1), how many bytes of the path
// before it the path starts with (uvarint; 0 for the first), the length of the rest
// (uvarint), the rest, and with flag listingBlock the block number (uvarint); without it
// the number is one more than that of the op before. The first op of a row has the flag.
const listingBlock = 1

// listingRowBytes is the size at which a listing row is closed: small enough that a
// cursor in the middle of an import skips little, large enough to compress.
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

// next moves to the next op; path is valid until the call after.
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
	if n <= 0 || flags&^listingBlock != 0 || shared > uint64(len(l.op.path)) || length > uint64(len(b)-n) {
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
