package store

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// DropRepo removes a repository's row, and leaves the rows of its ordinal to the collector. The
// repository must show no records: the caller has deleted them by Apply, with events, in this batch
// or before. r is a fresh row afterwards, not on disk. DropRepo must not follow PutRepo of r in the
// same batch.
//
// Readers of the log get those deletes for as long as the log keeps them, even if the repository is
// tracked again, under another ordinal. Earlier creates and updates are skipped, as when a
// repository is wiped. A reader that starts at the beginning of the log therefore meets deletes of
// records for which it got no create.
//
// A copy of the repository may be in flight. It is dropped at its flip, unless the repository is
// tracked again meanwhile with the same attempt number.
func (b *Batch) DropRepo(r *Repo) error {
	if r.Records != int64(r.Hidden) {
		return fmt.Errorf("drop %s: the repository shows records", r.DID)
	}
	b.DropBuffer(r)
	if r.Ordinal != 0 {
		b.abandon(r.Ordinal)
		b.dropped = append(b.dropped, droppedRepo{r.DID, r.Ordinal})
	} else {
		b.dropped = append(b.dropped, droppedRepo{did: r.DID})
	}
	r.Rev = "" // its copy is gone
	b.tell(r, told{condition: ConditionUntracked})
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

// markDropped records, for each ordinal that a batch drops, the event before which the log may name
// it. The sequencer's mutex is held.
func (s *Store) markDropped(b *Batch) error {
	for _, d := range b.dropped {
		if d.ordinal == 0 {
			continue
		}
		err := errors.Join(b.b.Set(ordinalKey(b.key[:0], spaceDropped, d.ordinal),
			binary.BigEndian.AppendUint64(nil, s.seq.next), nil),
			b.b.Set(droppedAtKey(nil, s.seq.next, d.ordinal), nil, nil))
		if err != nil {
			return err
		}
	}
	return nil
}

func parseDropped(v []byte) (id uint64, err error) {
	if len(v) != idBytes {
		return 0, fmt.Errorf("event of a dropped ordinal %x: %w", v, ErrCorrupt)
	}
	return binary.BigEndian.Uint64(v), nil
}

// dropped checks the ordinals of dropped repositories: none has an owner, and each is also indexed
// by its event.
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
			c.report("dropped ordinal %d: event %d of %d, owner %v (%v)", o, id, c.next, owned, err)
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
		c.report("dropped ordinals: %d are not indexed by event", n)
	}
	return err
}
