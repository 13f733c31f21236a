package store

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// DropRepo removes a repository's row, and leaves the rows of its ordinal to the collector. It must
// show no records: the caller has deleted them by Apply, with events, in this batch or before. r is
// a fresh row afterwards, not on disk. Not after PutRepo of r in one batch.
//
// Readers of the log are given those deletions for as long as the log keeps them, also when the repository is tracked
// again, under another ordinal; what was created and updated before is skipped, as when a repository is wiped. So
// whoever reads the log from its beginning meets deletions of records that it was never told of.
//
// A copy of it may be on its way: it is dropped at its flip unless the repository is tracked again meanwhile with the
// same count of attempts.
func (b *Batch) DropRepo(r *Repo) error {
	if r.Records != int64(r.Hidden) {
		return fmt.Errorf("drop %s: it shows records", r.DID)
	}
	b.DropBuffer(r)
	if r.Ordinal != 0 {
		b.abandon(r.Ordinal)
		b.dropped = append(b.dropped, droppedRepo{r.DID, r.Ordinal})
	} else {
		b.dropped = append(b.dropped, droppedRepo{did: r.DID})
	}
	if r.loaded.exists {
		b.move(r.DID, r.loaded, rowState{})
		b.delete(repoKey(b.key[:0], r.DID))
	}
	*r = Repo{DID: r.DID}
	return b.err
}

// droppedRepo is a repository that a batch drops, and the ordinal it had, 0 for none.
type droppedRepo struct {
	did     string
	ordinal Ordinal
}

// markDropped notes up to where the log may tell of an ordinal that is dropped. The sequencer's mutex is held.
func (s *Store) markDropped(b *Batch) error {
	for _, d := range b.dropped {
		if d.ordinal == 0 {
			continue
		}
		err := errors.Join(b.b.Set(ordinalKey(b.key[:0], spaceDropped, d.ordinal), binary.BigEndian.AppendUint64(nil, s.seq.next), nil),
			b.b.Set(droppedAtKey(nil, s.seq.next, d.ordinal), nil, nil))
		if err != nil {
			return err
		}
	}
	return nil
}

func parseDropped(v []byte) (id uint64, err error) {
	if len(v) != idBytes {
		return 0, fmt.Errorf("dropped at %x: %w", v, ErrCorrupt)
	}
	return binary.BigEndian.Uint64(v), nil
}

// dropped checks the ordinals of dropped repositories: no repository has one, and each is also
// indexed by its event.
func (c *checker) dropped() error {
	n := 0
	err := c.space(spaceDropped, func(key, value []byte) error {
		n++
		o, err := parseOrdinalKey(spaceDropped, key)
		if err != nil {
			return err
		}
		id, err := parseDropped(value)
		owned, oerr := holds(c.r, ordinalKey(nil, spaceOwner, o))
		if err != nil || owned || id > c.next {
			c.report("dropped ordinal %d: at event %d of %d, has an owner: %v (%v)", o, id, c.next, owned, err)
		}
		noted, nerr := holds(c.r, droppedAtKey(nil, id, o))
		if nerr == nil && !noted {
			c.report("dropped ordinal %d: not indexed at event %d", o, id)
		}
		return errors.Join(oerr, nerr)
	})
	if err != nil {
		return err
	}
	err = c.space(spaceDroppedAt, func(key, _ []byte) error {
		n--
		_, _, err := parseDroppedAtKey(key)
		return err
	})
	if n != 0 {
		c.report("dropped ordinals: %d more than are indexed by event", n)
	}
	return err
}
