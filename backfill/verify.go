package backfill

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"cistern/ingest/identity"
	"cistern/ingest/repo"
)

// verify checks everything about a CAR that can be checked without writing.
func (t *task) verify(ctx context.Context, car *repo.CAR) error {
	block, ok, err := car.Block(car.Root())
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("the commit %s is not in the CAR: %w", car.Root(), repo.ErrInvalid)
	}
	if err := t.verifyCommit(ctx, block); err != nil {
		return err
	}
	return t.walkAll(car)
}

// verifyCommit takes the signed commit, if it may be what the repository is at now.
func (t *task) verifyCommit(ctx context.Context, block []byte) (err error) {
	t.block = append([]byte(nil), block...)
	if t.commit, err = repo.ParseCommit(t.block); err != nil {
		return err
	}
	c := t.commit
	switch {
	case c.DID != t.it.did:
		return fmt.Errorf("the commit is of %.64s: %w", c.DID, repo.ErrInvalid)
	case c.Version != 3:
		return fmt.Errorf("the commit is of version %d: %w", c.Version, repo.ErrInvalid)
	case c.Rev < t.row.Rev:
		return fmt.Errorf("rev %s is older than %s, which we hold: %w", c.Rev, t.row.Rev, repo.ErrInvalid)
	case c.Rev < t.row.TornRev:
		return fmt.Errorf("rev %s is older than %s, of which we hold a part: %w", c.Rev, t.row.TornRev, repo.ErrInvalid)
	}
	if err := c.CheckRev(t.r.opts.Now()); err != nil {
		return err
	}
	if t.r.opts.Verify != VerifyNone {
		return t.verifySignature(ctx)
	}
	return nil
}

// verifySignature holds the commit against the key of the document. An account that moved and has
// not written since is signed with a key that its document no longer names: it is taken from the
// host that the document names today, if the key was good when the commit was made.
func (t *task) verifySignature(ctx context.Context) error {
	t.former = false
	err := t.commit.Verify(t.block, t.ident.PublicKey)
	if !t.mayBeFormer(err) || !t.fresh || t.sender != identity.HostOf(t.ident.PDS) {
		return err
	}
	keys, kerr := t.r.opts.Directory.KeysAt(ctx, t.it.did, repo.TIDTime(t.commit.Rev))
	switch {
	case errors.Is(kerr, identity.ErrNotFound), errors.Is(kerr, identity.ErrInvalid):
		return err
	case kerr != nil:
		return &resolveError{fmt.Errorf("read former keys: %w", kerr)}
	}
	for _, key := range keys {
		if t.commit.Verify(t.block, key) == nil {
			t.former = true
			return nil
		}
	}
	return err
}

// mayBeFormer says whether the failure could be one of the key alone, of a DID that remembers its keys.
func (t *task) mayBeFormer(err error) bool {
	return errors.Is(err, repo.ErrSignature) && strings.HasPrefix(t.it.did, "did:plc:")
}

// walkAll checks the tree, and that its records, each counted as often as it is named, are not out
// of proportion to what was sent: readers are sent them so often, and a difference stores them so. It notes whether
// any is in a collection that a signal names.
func (t *task) walkAll(copied records) error {
	t.signal = false
	limit := expandSlack + shareRatio*copied.Bytes()
	size, hidden, collections := int64(0), 0, 0
	collection := []byte(nil) // of the record before, with its slash
	return copied.Walk(t.commit.Data, func(l repo.Leaf) error {
		if size += int64(len(l.Record)); size > limit {
			return fmt.Errorf("the records make more than %d bytes, shared blocks counted each time: %w", limit, repo.ErrInvalid)
		}
		if !l.Valid {
			if hidden++; hidden > hiddenMax {
				return fmt.Errorf("more than %d keys are no collection and record key: %w", hiddenMax, repo.ErrInvalid)
			}
			return nil
		}
		if len(collection) > 0 && bytes.HasPrefix(l.Key, collection) {
			return nil
		}
		collection = append(collection[:0], l.Key[:bytes.IndexByte(l.Key, '/')+1]...)
		if collections++; collections > collectionsMax {
			return fmt.Errorf("more than %d collections: %w", collectionsMax, repo.ErrInvalid)
		}
		t.signal = t.signal || t.filter.Signal(collection[:len(collection)-1])
		return nil
	})
}
