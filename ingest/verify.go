package ingest

import (
	"time"

	"cistern/ingest/frame"
	"cistern/ingest/repo"
	"cistern/store"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
)

// proof is a live commit taken apart once. It refers to the frame's message, and its memory is used again.
type proof struct {
	slice  repo.Slice
	commit repo.Commit
	block  []byte // the signed commit
	ops    []repo.SliceOp
	whole  bool // every update and delete states what it replaces, so that inversion needs nothing of ours
}

// read checks everything about a #commit that needs neither a key nor our rows: datetime and rev syntax,
// rev not in the future, size limits of the lexicon, CAR, hashes, root = commit = message, DID and rev as in the
// envelope, version 3, operations (at most 200, unique legal keys, create with cid and without prev, update with cid and a
// different prev, delete without cid), and the record of each create and update. The error is
// repo.ErrInvalid; rejection(err) is its reason for the metric.
func (p *proof) read(f *frame.Frame, now time.Time) error { panic("not written yet") }

// readSync is read for #sync: only the commit has to be there.
func (p *proof) readSync(f *frame.Frame, now time.Time) error { panic("not written yet") }

// signed says whether the commit is signed by key: repo.ErrSignature.
func (p *proof) signed(key atcrypto.PublicKey) error { panic("not written yet") }

// before is the root of the tree before the operations, with held giving what we hold at a path for operations that do
// not state what they replace. repo.ErrProof when nodes are missing; repo.ErrInvalid when the tree denies an operation.
func (p *proof) before(held func(path []byte) (repo.CID, error)) (repo.CID, error) { panic("not written yet") }

// claimed checks without inversion that the tree holds what the operations wrote, as far as its nodes tell
// (legacy hosts send no others).
func (p *proof) claimed() error { panic("not written yet") }

// writes are the operations as the store takes them.
func (p *proof) writes(dst []store.Op) []store.Op { panic("not written yet") }

// rejection is a word for the metric that counts refused events, of a closed set.
func rejection(err error) string { panic("not written yet") }
