package ingest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"cistern/ingest/frame"
	"cistern/ingest/repo"
	"cistern/store"
)

// Limits of the lexicon. Package repo limits the blocks of a commit.
const (
	proofOpsMax       = 200
	proofSyncBytesMax = 10_000
)

// Reasons for which messages are refused; rejection gives one of them.
const (
	refusedFrame = "frame" // only the DID and rev of the message can be decoded
	refusedTime  = "time"  // not a datetime
	refusedRev   = "rev"   // not a TID, or in the future
	refusedCAR   = "car"   // not a CAR, too large, or a block that does not hash to its CID
	// the commit is not the CAR's root, not what the message names, or absent
	refusedRoot      = "root"
	refusedCommit    = "commit"    // not a signed commit of version 3
	refusedEnvelope  = "envelope"  // the commit has another DID or rev than the message
	refusedOps       = "ops"       // too many, an illegal key, or an impossible shape
	refusedRecord    = "record"    // a record that was written is absent
	refusedSignature = "signature" // not made by this key
	refusedProof     = "proof"     // tree nodes are absent
	refusedTree      = "tree"      // the tree contradicts an operation, or is not a tree
)

// refusal is a repo.ErrInvalid with its reason.
type refusal struct {
	reason string
	err    error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// refuse adds a reason to an error that is repo.ErrInvalid.
func refuse(reason string, err error) error { return &refusal{reason: reason, err: err} }

func refusef(reason, format string, args ...any) error {
	return refuse(reason, fmt.Errorf("%w: %w", fmt.Errorf(format, args...), repo.ErrInvalid))
}

// rejection returns the label of the metric of refused events, from a closed set.
func rejection(err error) string {
	var r *refusal
	switch {
	case errors.As(err, &r):
		return r.reason
	case errors.Is(err, repo.ErrSignature):
		return refusedSignature
	case errors.Is(err, repo.ErrProof):
		return refusedProof
	}
	return refusedTree
}

// proof is a decoded live commit. It refers to the frame's message, and its memory is reused.
type proof struct {
	slice  repo.Slice
	commit repo.Commit
	block  []byte // the signed commit
	// net changes: at most one for each path, and none that states that it changes nothing
	ops []repo.SliceOp
	// every update and delete states what it replaces, so that inversion needs nothing from our
	// rows
	whole bool

	unstated []int32        // indices of the ops that do not state what they replace
	filled   []repo.SliceOp // ops completed from our rows
	order    []int32        // indices of the message's operations, sorted by path
	// for the first operation on a path the index of the last one on it, -1 for the others
	last []int32
}

// read checks everything about a #commit that needs neither a key nor our rows: datetime and rev
// syntax, rev not in the future, size limits of the lexicon, CAR, hashes, root = commit = message,
// DID and rev as in the envelope, version 3, operations (at most 200, legal keys, create and update
// with cid, delete without), and the record at each path that changed. The error is
// repo.ErrInvalid; rejection(err) is its reason for the metric.
func (p *proof) read(f *frame.Frame, now time.Time) error {
	if err := p.readCommit(f, now); err != nil {
		return fmt.Errorf("commit %s rev %s: %w", f.DID, f.Rev, err)
	}
	if root := p.slice.Root(); root != f.Commit {
		return fmt.Errorf("commit %s rev %s: %w", f.DID, f.Rev,
			refusef(refusedRoot, "message names %s, the CAR's root is %s", f.Commit, root))
	}
	if err := p.readOps(f.Ops); err != nil {
		return fmt.Errorf("commit %s rev %s: %w", f.DID, f.Rev, err)
	}
	return nil
}

// readSync checks a #sync, for which only the commit must be present.
func (p *proof) readSync(f *frame.Frame, now time.Time) error {
	if len(f.Blocks) > proofSyncBytesMax {
		return refusef(refusedCAR, "sync %s rev %s has %d bytes of blocks", f.DID, f.Rev, len(f.Blocks))
	}
	if err := p.readCommit(f, now); err != nil {
		return fmt.Errorf("sync %s rev %s: %w", f.DID, f.Rev, err)
	}
	return nil
}

// readCommit reads the blocks and the commit in them.
func (p *proof) readCommit(f *frame.Frame, now time.Time) error {
	p.block, p.commit, p.ops, p.whole = nil, repo.Commit{}, p.ops[:0], true
	p.unstated = p.unstated[:0]
	if f.Time == 0 {
		return refusef(refusedTime, "time is not a datetime")
	}
	if _, err := repo.ParseTID(f.Rev); err != nil {
		return refuse(refusedRev, err)
	}
	if err := (repo.Commit{Rev: f.Rev}).CheckRev(now); err != nil {
		return refuse(refusedRev, err)
	}
	if err := p.slice.Read(f.Blocks); err != nil {
		return refuse(refusedCAR, err)
	}
	block, ok := p.slice.Block(p.slice.Root())
	if !ok {
		return refusef(refusedRoot, "block %s is missing", p.slice.Root())
	}
	commit, err := repo.ParseCommit(block)
	if err != nil {
		return refuse(refusedCommit, err)
	}
	if commit.DID != f.DID || commit.Rev != f.Rev {
		return refusef(refusedEnvelope, "commit is of %s rev %s", commit.DID, commit.Rev)
	}
	p.block, p.commit = block, commit
	return nil
}

// readOps reduces the operations to net changes. Several on one path become one: what the first
// replaced, and what the last left there. (The reference PDS emits all of them as they were
// requested, each with the record before the commit as its prev.) A change that states that it
// changes nothing is left out: it needs neither record nor tree nodes, because the inversion of the
// others already determines both trees.
func (p *proof) readOps(ops []frame.Op) error {
	if len(ops) > proofOpsMax {
		return refusef(refusedOps, "%d operations", len(ops))
	}
	p.findLast(ops)
	for i := range ops {
		first, last := &ops[i], p.last[i]
		if why := impossible(first, last >= 0); why != "" {
			return refusef(refusedOps, "%.16s %.200q: %s", first.Action, first.Path, why)
		}
		if last < 0 {
			continue
		}
		net := repo.SliceOp{Path: first.Path, CID: ops[last].CID, Prev: first.Prev}
		stated := first.Action == "create" || first.Prev.Defined()
		if stated && net.CID == net.Prev {
			continue
		}
		if _, ok := p.slice.Block(net.CID); !ok && net.CID.Defined() {
			return refusef(refusedRecord, "%.16s %.200q: record %s is missing",
				ops[last].Action, net.Path, net.CID)
		}
		if !stated {
			p.whole, p.unstated = false, append(p.unstated, int32(len(p.ops)))
		}
		p.ops = append(p.ops, net)
	}
	return nil
}

// findLast sets p.last.
func (p *proof) findLast(ops []frame.Op) {
	p.order, p.last = p.order[:0], p.last[:0]
	for i := range ops {
		p.order, p.last = append(p.order, int32(i)), append(p.last, int32(i))
	}
	slices.SortFunc(p.order, func(a, b int32) int {
		return cmp.Or(bytes.Compare(ops[a].Path, ops[b].Path), cmp.Compare(a, b))
	})
	first := int32(0)
	for i, at := range p.order {
		if i == 0 || !bytes.Equal(ops[first].Path, ops[at].Path) {
			first = at
			continue
		}
		p.last[first], p.last[at] = at, -1
	}
}

// impossible returns why an operation is impossible, "" if it is not. Only the prev of the first
// one on a path is checked: a create that follows a delete in the same commit names the record
// before the commit.
func impossible(op *frame.Op, first bool) string {
	switch {
	case !repo.ValidKey(op.Path):
		return "not a valid key"
	case op.Action != "create" && op.Action != "update" && op.Action != "delete":
		return "unknown action"
	case op.Action == "delete" && op.CID.Defined():
		return "has a cid"
	case op.Action != "delete" && !op.CID.Defined():
		return "has no cid"
	case op.Action == "create" && op.Prev.Defined() && first:
		return "has a prev"
	}
	return ""
}

// signed returns repo.ErrSignature unless the commit is signed by key.
func (p *proof) signed(key *repo.Key) error { return p.commit.Verify(p.block, key) }

// before returns the root of the tree before the operations. held returns our record at a path, for
// operations that do not state what they replace. The error is repo.ErrProof when nodes are
// missing, repo.ErrInvalid when the tree contradicts an operation. A commit that changes nothing
// needs no nodes: the tree before it is its own.
func (p *proof) before(held func(path []byte) (repo.CID, error)) (repo.CID, error) {
	ops := p.ops
	if !p.whole {
		// A record that we do not hold was created if it was written, and does not exist if it was
		// deleted. If that is wrong, the root will not be that of the tree we hold.
		p.filled = append(p.filled[:0], ops...)
		for _, i := range p.unstated {
			var err error
			if p.filled[i].Prev, err = held(ops[i].Path); err != nil {
				return repo.CID{}, fmt.Errorf("read what %s holds at %.200q: %w",
					p.commit.DID, ops[i].Path, err)
			}
		}
		ops = slices.DeleteFunc(p.filled, func(op repo.SliceOp) bool { return op.CID == op.Prev })
	}
	if len(ops) == 0 {
		return p.commit.Data, nil
	}
	root, err := p.slice.Invert(p.commit.Data, ops)
	if err != nil {
		return repo.CID{}, fmt.Errorf("invert commit %s rev %s: %w", p.commit.DID, p.commit.Rev, err)
	}
	return root, nil
}

// claimed checks without inversion that the tree has what the operations wrote, and not what they
// deleted. Legacy hosts send new nodes only. The nodes above a record that was written are new, and
// so are those above the place of a deleted one, except where the tree became lower: that commit is
// refused, and the repository fetched.
func (p *proof) claimed() error {
	for i := range p.ops {
		op := &p.ops[i]
		switch found, err := p.slice.Find(p.commit.Data, op.Path); {
		case err != nil:
			return fmt.Errorf("find %.200q in commit %s rev %s: %w",
				op.Path, p.commit.DID, p.commit.Rev, err)
		case found != op.CID:
			return refusef(refusedTree, "commit %s rev %s: the tree has another record at %.200q",
				p.commit.DID, p.commit.Rev, op.Path)
		}
	}
	return nil
}

// writes returns the operations in the form of the store.
func (p *proof) writes(dst []store.Op) []store.Op {
	for i := range p.ops {
		op := &p.ops[i]
		record, _ := p.slice.Block(op.CID)
		dst = append(dst, store.Op{Path: op.Path, CID: op.CID, Record: record,
			Replaces: op.Prev.Defined()})
	}
	return dst
}
