package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"cistern/backfill/hosts"
	"cistern/ingest/identity"
	"cistern/ingest/repo"
)

// verify checks everything about a CAR that can be checked without writing.
func (s *session) verify(ctx context.Context, car *repo.CAR) error {
	block, err := commitOf(car)
	if err != nil {
		return err
	}
	if err := s.verifyCommit(ctx, block); err != nil {
		return err
	}
	return s.walkAll(car)
}

// commitOf returns the block of the commit, which is the root of the CAR.
func commitOf(car *repo.CAR) ([]byte, error) {
	block, ok, err := car.Block(car.Root())
	if err == nil && !ok {
		err = fmt.Errorf("the commit %s is not in the CAR: %w", car.Root(), repo.ErrInvalid)
	}
	return block, err
}

// verifyCommit takes the signed commit, if it may be what the repository is at now.
func (s *session) verifyCommit(ctx context.Context, block []byte) (err error) {
	s.block = append([]byte(nil), block...)
	if s.commit, err = repo.ParseCommit(s.block); err != nil {
		return err
	}
	c := s.commit
	switch {
	case c.DID != s.to.DID:
		return fmt.Errorf("the commit is of %.64s: %w", c.DID, repo.ErrInvalid)
	case c.Version != 3:
		return fmt.Errorf("the commit is of version %d: %w", c.Version, repo.ErrInvalid)
	case c.Rev < s.req.Rev:
		return fmt.Errorf("rev %s is older than %s, which we hold: %w", c.Rev, s.req.Rev, repo.ErrInvalid)
	case c.Rev < s.req.TornRev:
		return fmt.Errorf("rev %s is older than %s, of which we hold a part: %w",
			c.Rev, s.req.TornRev, repo.ErrInvalid)
	}
	if err := c.CheckRev(s.c.opts.Now()); err != nil {
		return err
	}
	if s.c.opts.Unsigned {
		return nil
	}
	return s.verifySignature(ctx)
}

// verifySignature checks the commit against the key of the document. The last commit of an account
// that moved and has not written since is signed with a key that its document no longer names. It
// is accepted from the host that the document names today, if the key was valid when the commit was
// made.
func (s *session) verifySignature(ctx context.Context) error {
	s.former = false
	err := s.commit.Verify(s.block, s.to.Ident.PublicKey)
	if !MayBeFormer(s.to.DID, err) || !s.req.Fresh || s.sender != identity.HostOf(s.to.Ident.PDS) {
		return err
	}
	keys, kerr := s.c.opts.Keys.KeysAt(ctx, s.to.DID, repo.TIDTime(s.commit.Rev))
	switch {
	case errors.Is(kerr, identity.ErrNotFound), errors.Is(kerr, identity.ErrInvalid):
		return err
	case kerr != nil:
		return &hosts.ResolveError{Err: fmt.Errorf("read former keys: %w", kerr)}
	}
	for _, key := range keys {
		if s.commit.Verify(s.block, key) == nil {
			s.former = true
			return nil
		}
	}
	return err
}

// MayBeFormer reports whether a former key may have made the signature that failed: only the
// directory of did:plc keeps former keys.
func MayBeFormer(did string, err error) bool {
	return errors.Is(err, repo.ErrSignature) && strings.HasPrefix(did, "did:plc:")
}

// walkAll checks the tree, and bounds the size of its records relative to the bytes received. A
// record counts once for each key that names it, because readers receive it and a diff stores it
// that often. walkAll also records whether any is in a collection that a signal names.
func (s *session) walkAll(copied records) error {
	s.signal = false
	limit := expandSlack + shareRatio*copied.Bytes()
	size, hidden, collections := int64(0), 0, 0
	collection := []byte(nil) // of the record before, with its slash
	return copied.Walk(s.commit.Data, func(l repo.Leaf) error {
		if size += int64(len(l.Record)); size > limit {
			return fmt.Errorf("the records make more than %d bytes, shared blocks counted each time: %w",
				limit, repo.ErrInvalid)
		}
		if !l.Valid {
			if hidden++; hidden > hiddenMax {
				return fmt.Errorf("more than %d keys are no collection and record key: %w",
					hiddenMax, repo.ErrInvalid)
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
		s.signal = s.signal || s.req.Filter.Signal(collection[:len(collection)-1])
		return nil
	})
}
