package store

import (
	"encoding/binary"
	"fmt"

	"cistern/ingest/repo"
)

// valueVersion is the first byte of every encoded value. Values of another version are
// refused, never guessed at.
const valueVersion = 1

// recordRow is the row of a record: version(1) flags(1) block(4) digest(32) rev. It is raw bytes
// since there is one for each record.
type recordRow struct {
	hidden  bool
	shelved bool
	block   uint32
	cid     repo.CID
	rev     []byte
}

const (
	recordRowBytes = 1 + 1 + blockBytes + 32
	recordHidden   = 1 // flag: the path is a legal MST key but not a valid collection/rkey
	recordShelved  = 2 // flag: the filter of the repository does not want it
)

func (r recordRow) append(dst []byte) []byte {
	var flags byte
	if r.hidden {
		flags |= recordHidden
	}
	if r.shelved {
		flags |= recordShelved
	}
	dst = binary.BigEndian.AppendUint32(append(dst, valueVersion, flags), r.block)
	return append(append(dst, r.cid[:]...), r.rev...)
}

func parseRecordRow(b []byte) (recordRow, error) {
	if len(b) < recordRowBytes || b[0] != valueVersion || b[1] > recordShelved {
		return recordRow{}, fmt.Errorf("record row %x: %w", b, ErrCorrupt)
	}
	return recordRow{hidden: b[1] == recordHidden, shelved: b[1] == recordShelved,
		block: binary.BigEndian.Uint32(b[2:]), cid: repo.CID(b[6:recordRowBytes]),
		rev: b[recordRowBytes:]}, nil
}

// entryKind is the kind of an entry of the log.
type entryKind uint8

const (
	entryCommit entryKind = 1 + iota // Ops stand in the entry
	// Count ops stand in the listings of Ordinal, from op First on
	entryImport
	entryAccount  // Status
	entryIdentity // Handle, PDS
	entryRelist   // as entryImport: all records once more
	entryRepo     // Condition, Reason, Status, Since, Next; Rev is of the copy
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
	First   uint32    `cbor:"12,keyasint,omitempty"` // 0 in an import

	Condition Condition `cbor:"13,keyasint,omitempty"`
	Reason    ErrorKind `cbor:"14,keyasint,omitempty"`
	Since     int64     `cbor:"15,keyasint,omitempty"` // unix seconds
	Next      int64     `cbor:"16,keyasint,omitempty"` // unix seconds

	// Blocks is the number of blocks that an import into an ephemeral store wrote: those below it.
	Blocks uint32 `cbor:"17,keyasint,omitempty"`
}

// entryOpsMax bounds the ops of one entry, and so of one Apply: the decoder refuses more. A
// million ops are some 50 MB, far beyond what one batch should hold.
const entryOpsMax = 1 << 20

// entryOp is one record operation. Its CID is the hash of the block and is not stored.
type entryOp struct {
	_      struct{} `cbor:",toarray"`
	Action Action
	Path   []byte
	Block  uint32
}

// ids returns the number of event ids that the entry takes.
func (e *entryV1) ids() uint64 {
	switch e.Kind {
	case entryCommit:
		return uint64(len(e.Ops))
	case entryImport, entryRelist:
		return uint64(e.Count)
	}
	return 1
}

// listed reports whether the entry's ops are in listing rows, namely those of [lower, upper).
func (e *entryV1) listed() bool { return e.Kind == entryImport || e.Kind == entryRelist }

func (e *entryV1) listing() (lower, upper []byte) {
	return numberedKey(nil, spaceListing, e.Ordinal, e.First),
		numberedKey(nil, spaceListing, e.Ordinal, e.First+e.Count)
}
