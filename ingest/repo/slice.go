package repo

// Slice is the part of a repository that a live message carries (sync v1.1): the signed commit, the
// tree nodes on the paths that its operations touch, and the records they wrote.
//
// A Slice may be used again by another Read, which keeps its memory.
type Slice struct{}

// SliceOp is one record operation in the form that the tree sees: a zero CID deletes, a zero Prev creates.
type SliceOp struct {
	Path      []byte
	CID, Prev CID
}

// ErrProof is ErrInvalid in the case where the slice lacks a node that the question needs.
var ErrProof = errNotWritten

var errNotWritten = ErrInvalid

// Read parses a CAR (v1, at least one root), hashing every block. The blocks refer to car, which
// must not change. What is wrong is ErrInvalid.
func (s *Slice) Read(car []byte) error { panic("not written yet") }

// Root is the first root of the CAR: the commit.
func (s *Slice) Root() CID { panic("not written yet") }

// Block is the block with that CID.
func (s *Slice) Block(id CID) (block []byte, ok bool) { panic("not written yet") }

// Invert takes the operations back, last to first, in the tree whose root is data, and gives the
// root of the tree before them (the inductive proof of sync v1.1). It needs only the nodes on their paths: ErrProof
// when one is missing, ErrInvalid when the tree does not hold what the operations say they wrote.
func (s *Slice) Invert(data CID, ops []SliceOp) (prev CID, err error) { panic("not written yet") }

// Find is the record at a path of the tree whose root is data, zero when the tree proves that there is
// none. ErrProof when a node on the way is missing.
func (s *Slice) Find(data CID, path []byte) (CID, error) { panic("not written yet") }

// ValidKey says whether path may be a key of a tree at all: 1 to 1024 bytes. Whether it names a
// record is ValidPath's to say.
func ValidKey(path []byte) bool { return len(path) > 0 && len(path) <= keyBytesMax }
