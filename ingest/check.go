package ingest

import (
	"errors"
	"time"

	"cistern/ingest/frame"
	"cistern/ingest/repo"
	"cistern/store"
)

// check verifies a #commit or #sync in two steps: first without a lock, against a row that may be
// outdated and the key of the account, and then against the locked row. If the commit fits, check
// writes its records. Its memory is reused.
type check struct {
	l   *backlog     // backlog of the DID, with the looked-up identity
	f   *frame.Frame // frame of the event or of the buffered commit
	now time.Time

	made    bool // the fields below are set
	proof   proof
	large   bool     // proof uses much memory
	prev    repo.CID // root of the tree before, if proof.whole
	prevErr error
	bad     error // why the event is invalid
	unsure  bool  // no key could be found
	partial bool  // applied without proof that its operations are complete

	ops []store.Op // scratch of apply
}

// begin resets the check for an event.
func (c *check) begin(l *backlog, f *frame.Frame, now time.Time) {
	c.l, c.f, c.now = l, f, now
	c.made, c.unsure, c.partial, c.large = false, false, false, false
	c.prev, c.prevErr, c.bad = repo.CID{}, nil, nil
}

// end drops references to memory that the check does not own.
func (c *check) end() {
	clear(c.ops)
	if c.large {
		c.proof = proof{}
	}
	c.l, c.f = nil, nil
}

// verify makes all checks that do not need a locked row. If it lacks a lookup for them, it returns
// the lookup that it needs.
func (c *check) verify(row *store.Repo) need {
	c.made, c.large = true, len(c.f.Blocks) > keptBlocksMax
	p := &c.proof
	if c.f.Kind == frame.KindSync {
		c.bad = p.readSync(c.f, c.now)
	} else {
		c.bad = p.read(c.f, c.now)
	}
	if c.bad != nil {
		return needNothing
	}
	if !c.l.shard.r.opts.SkipSignatures {
		if n := c.checkSignature(row); n != needNothing || c.bad != nil || c.unsure {
			return n
		}
	}
	if c.f.Kind != frame.KindSync && p.whole {
		c.prev, c.prevErr = p.before(func([]byte) (repo.CID, error) { return repo.CID{}, nil })
	}
	return needNothing
}

// checkSignature has the document read again, once, if the signature does not match the known key.
// While the directory does not answer, the key in the row is used (outage.go).
func (c *check) checkSignature(row *store.Repo) need {
	l := c.l
	ident, known := l.identify(row, c.now)
	if !known {
		switch {
		case l.got == needNothing:
			return c.wantKey(row)
		case passing(l.err) && !l.mismatch && c.signedByHeld(row):
			return c.accept()
		case passing(l.err):
			c.unsure = true
		default:
			c.bad = errIdentity
		}
		return needNothing
	}
	if c.bad = c.proof.signed(ident.PublicKey); c.bad == nil {
		return needNothing
	}
	if errors.Is(c.bad, repo.ErrSignature) && l.got == needNothing {
		l.mismatch = true
		return needRefresh
	}
	return needNothing
}

// verdict is the relation of an event to our copy.
type verdict uint8

const (
	fits     verdict = iota
	breaks           // it follows a state that is not our copy's
	invalid          // see check.bad
	unsure           // no key could be found
	unproven         // it fits, but the message lacks the proof
)

// judge compares a verified commit with the row. The error is the store's.
func (c *check) judge(row *store.Repo) (verdict, error) {
	switch {
	case c.unsure:
		return unsure, nil
	case c.bad != nil:
		return invalid, nil
	case row.Ordinal == 0:
		return breaks, nil
	case c.proof.commit.Data == row.Data:
		// The commit's tree is the tree that we hold, whatever its operations are: only the rev
		// changes, as with a #sync.
		c.proof.ops = c.proof.ops[:0]
		return fits, nil
	case c.f.PrevData.Defined() && c.f.PrevData != row.Data:
		return breaks, nil
	}
	prev, unheld, err, failure := c.before(row)
	switch {
	case failure != nil:
		return breaks, failure
	case err == nil && prev == row.Data:
		// Undoing the operations gives the tree that we hold, so since need not be checked.
	case unheld, errors.Is(err, repo.ErrProof) && !c.f.PrevData.Defined():
		// Either our rows do not have the replaced record, or a host older than sync v1.1 left out
		// the nodes beside the path.
		if c.f.Since != row.Rev {
			return breaks, nil
		}
		c.partial, c.bad = true, c.proof.claimed()
	case err != nil:
		c.bad = err
	default:
		return breaks, nil
	}
	if c.bad == nil {
		c.bad = overflow(row, c.proof.ops)
	}
	if c.bad != nil {
		return invalid, nil
	}
	return fits, nil
}

// before returns the root of the tree before the commit. err is the reason why the message does not
// prove this root. unheld means that an operation replaces a record that we may not store, because
// of the filter or because it has gone; the root is then computed as if there was no record.
// failure is an error of the store.
func (c *check) before(row *store.Repo) (prev repo.CID, unheld bool, err, failure error) {
	if c.proof.whole {
		return c.prev, false, c.prevErr, nil
	}
	kept, failure := c.l.shard.r.store.FilterAt(row.Filter)
	if failure != nil {
		return repo.CID{}, false, nil, failure
	}
	prev, err = c.proof.before(func(path []byte) (repo.CID, error) {
		s := c.l.shard.r.store
		cid, err := s.RecordCID(row, path)
		unheld = unheld || row.Lacks || !kept.Keeps(path) || s.Ephemeral() && !cid.Defined()
		failure = errors.Join(failure, err)
		return cid, err
	})
	return prev, unheld, err, failure
}

// apply writes the records of a commit that fits. The caller writes the row.
func (c *check) apply(w *writing, row *store.Repo) error {
	b, p := w.b, &c.proof
	c.l.learn(w, row)
	c.ops = p.writes(c.ops[:0])
	if c.partial {
		for _, i := range p.unstated {
			c.ops[i].Replaces = true // as the signed message claims; nothing proves it
		}
	}
	if p.whole && !c.partial && row.Verified != store.VerifiedOps {
		// The tree before the commit, which is the tree that we hold, has no record at the path of
		// a creation: the store need not look for one.
		for i := range c.ops {
			c.ops[i].New = p.ops[i].CID.Defined() && !p.ops[i].Prev.Defined()
		}
	}
	if err := b.Apply(row, true, p.commit.Rev, c.ops); err != nil {
		return err
	}
	c.move(row)
	return nil
}

// move writes the rev, the root and the verification of the commit to the row.
func (c *check) move(row *store.Repo) {
	p := &c.proof
	row.Rev, row.Data, row.Commit = p.commit.Rev, p.commit.Data, p.block
	row.Withheld = row.Withheld && row.Mark != store.MarkNone
	if row.SeenRev <= row.Rev {
		row.SeenRev = ""
	}
	switch {
	case c.partial, row.Verified == store.VerifiedOps:
		row.Verified = store.VerifiedOps // until the next full copy
	case c.l.shard.r.opts.SkipSignatures:
		row.Verified = store.VerifiedHashes
	default:
		row.Verified = store.VerifiedFull
	}
}

// overflow returns an error if a commit would make a repository exceed its limits of collections or
// hidden keys. It may do so slightly below the limits.
func overflow(row *store.Repo, ops []repo.SliceOp) error {
	if int(row.Collections)+len(ops) <= collectionsMax && int(row.Hidden)+len(ops) <= hiddenMax {
		return nil
	}
	collections, hidden := map[string]struct{}{}, 0
	for _, op := range ops {
		collection, _, ok := repo.SplitPath(op.Path)
		switch {
		case !op.CID.Defined() || op.Prev.Defined():
		case ok:
			collections[string(collection)] = struct{}{}
		default:
			hidden++
		}
	}
	if int(row.Collections)+len(collections) > collectionsMax && len(collections) > 0 ||
		int(row.Hidden)+hidden > hiddenMax && hidden > 0 {
		return errLimit
	}
	return nil
}
