package repo

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Slice is the part of a repository that a live message carries (sync v1.1): the signed commit, the
// tree nodes on the paths that its operations touch, and the records they wrote.
//
// Another Read reuses the memory of a Slice. The zero value is empty. It must not be copied after
// the first use.
type Slice struct {
	root   CID
	bytes  int // length of the CAR
	blocks []sliceBlock
	index  index
	tree   partTree
}

type sliceBlock struct {
	id   *CID // in the CAR, as is data
	data []byte
}

// SliceOp is one record operation on the tree: a zero CID deletes, a zero Prev creates. With both
// zero it states that there was no record at the path, and changes nothing.
type SliceOp struct {
	Path      []byte
	CID, Prev CID
}

// ErrProof is the ErrInvalid of a slice that lacks a node on the way.
var ErrProof = fmt.Errorf("tree node is not in the slice: %w", ErrInvalid)

var (
	errVarint      = errors.New("section length is no varint in its shortest form")
	errSection     = errors.New("CAR ends inside a section")
	errSliceBytes  = errors.New("CAR exceeds 2000000 bytes")
	errSliceBlocks = errors.New("CAR exceeds 8192 blocks")
	errBlockBytes  = errors.New("section is shorter than a CID")
	errBlockHash   = errors.New("block does not hash to its CID")
)

// Read parses a CAR (v1, at least one root) and hashes every block with a CID of a repository's
// form. Like ReadCAR it skips other blocks. The blocks refer to car, which must not change. An
// error is ErrInvalid, and leaves the slice empty.
func (s *Slice) Read(car []byte) error {
	if s.bytes > sliceKeepBytes || s.index.slots == nil {
		*s = Slice{index: newIndex()}
	}
	s.forget()
	if err := s.read(car); err != nil {
		s.forget()
		return fmt.Errorf("slice: %w: %w", err, ErrInvalid)
	}
	return nil
}

// forget empties the slice and keeps its memory for reuse.
func (s *Slice) forget() {
	clear(s.index.slots)
	s.index.count = 0
	s.root, s.blocks = CID{}, s.blocks[:0]
	s.tree.forget()
}

func (s *Slice) read(car []byte) error {
	s.bytes = len(car)
	if len(car) > sliceBytesMax {
		return errSliceBytes
	}
	header, at, err := cutSection(car, 0)
	if err != nil {
		return fmt.Errorf("header: %w", err)
	}
	if len(header) > headerBytesMax {
		return fmt.Errorf("header of %d bytes", len(header))
	}
	if s.root, err = parseHeader(header); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	for at < len(car) {
		var entry []byte
		if entry, at, err = cutSection(car, at); err == nil {
			err = s.add(entry)
		}
		if err != nil {
			return fmt.Errorf("block %d: %w", len(s.blocks), err)
		}
	}
	return nil
}

// add checks a block. A block that is there twice counts twice, and is indexed once.
func (s *Slice) add(entry []byte) error {
	switch {
	case isForeign(entry):
		return nil
	case len(s.blocks) == sliceBlocksMax:
		return errSliceBlocks
	case len(entry) < CIDBytes:
		return errBlockBytes
	}
	if _, err := ParseCIDBytes(entry[:CIDBytes]); err != nil {
		return err
	}
	b := sliceBlock{id: (*CID)(entry[len(cidPrefix):]), data: entry[CIDBytes:]}
	if HashCID(b.data) != *b.id {
		return errBlockHash
	}
	h := s.index.hash(b.id)
	// Otherwise thousands of blocks with one CID would take quadratic time.
	if _, known := s.find(h, b.id); !known {
		s.index.add(h, uint64(len(s.blocks)))
	}
	s.blocks = append(s.blocks, b)
	return nil
}

// cutSection returns the section at car[at:] and the start of the next one.
func cutSection(car []byte, at int) (content []byte, next int, err error) {
	n, k := binary.Uvarint(car[at:])
	if k == 0 {
		return nil, 0, errSection
	}
	if k < 0 || k > 1 && car[at+k-1] == 0 {
		return nil, 0, errVarint
	}
	at += k
	if n > uint64(len(car)-at) {
		return nil, 0, errSection
	}
	next = at + int(n)
	return car[at:next:next], next, nil
}

// Root returns the first root of the CAR: the commit.
func (s *Slice) Root() CID { return s.root }

// Block returns the block with a CID.
func (s *Slice) Block(id CID) (block []byte, ok bool) { return s.block(&id) }

func (s *Slice) block(id *CID) ([]byte, bool) {
	if len(s.blocks) == 0 {
		return nil, false
	}
	return s.find(s.index.hash(id), id)
}

// find is block for a known hash of id.
func (s *Slice) find(h uint64, id *CID) ([]byte, bool) {
	pos, slot := s.index.first(h)
	for pos != noPos {
		if b := &s.blocks[pos]; *b.id == *id {
			return b.data, true
		}
		pos, slot = s.index.next(h, slot)
	}
	return nil, false
}

// ValidKey reports whether path may be a key of a tree: 1 to 1024 bytes. ValidPath reports whether
// it names a record.
func ValidKey(path []byte) bool { return len(path) > 0 && len(path) <= keyBytesMax }
