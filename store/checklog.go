package store

import (
	"errors"
)

// log checks that ids follow one another without a gap from the tail on, that times rise, and that
// everything that entries name exists.
func (c *checker) log() error {
	at, last := uint64(0), int64(0)
	err := c.space(spaceEvent, func(key, value []byte) error {
		id, err := parseEventKey(key)
		if err != nil {
			return err
		}
		var e entryV1
		if err := c.s.codec.decode(value, &e); err != nil {
			return err
		}
		if id < c.tail && c.s.ephemeral {
			return countLapsed(c, &e)
		}
		switch {
		case at == 0 && id != c.tail:
			c.report("log begins at %d, its tail is %d", id, c.tail)
		case at != 0 && id != at:
			c.report("event %d follows the entry that ends before %d", id, at)
		}
		if e.Time <= last {
			c.report("event %d: time %d is not after %d", id, e.Time, last)
		}
		at, last = id+e.ids(), e.Time+int64(e.ids())-1
		c.got[countEvents] += int64(e.ids())
		c.spent(checkEntryCost + int64(e.ids())*checkEventCost)
		return c.entry(id, &e)
	})
	if at == 0 {
		at = c.tail
	}
	if at != c.next {
		c.report("log ends before %d, the next id is %d", at, c.next)
	}
	return err
}

// entry checks that what an entry of record events names exists, unless the repository was wiped
// since, and that an entry of kind repo agrees with its row.
func (c *checker) entry(id uint64, e *entryV1) error {
	if !e.listed() && e.Kind != entryCommit && e.Kind != entryRepo {
		return nil
	}
	did, err := parseDID(e.DID)
	if err != nil {
		return err
	}
	r, err := c.s.loadRepo(c.r, did)
	if e.Kind == entryRepo {
		if r.DID = did; err == nil || errors.Is(err, ErrNotFound) {
			c.conditions.entry(e, &r)
		}
		return nil // the check of the repository reports another error
	}
	if err != nil || r.Ordinal != e.Ordinal {
		return nil // the check of the repository reports it
	}
	blocks, err := newBlockCursor(c.r, e.Ordinal)
	if err != nil {
		return err
	}
	if e.listed() {
		err = c.listing(id, e, r.Listed, blocks)
	}
	for _, op := range e.Ops {
		if op.Action != Delete {
			c.named(id, op.Block, blocks)
		}
	}
	return errors.Join(err, engineError(blocks.it.Close()))
}

// named reports a difference if a block that an event names does not exist.
func (c *checker) named(id uint64, block uint32, blocks *blockCursor) {
	if _, err := blocks.get(block); err != nil {
		c.report("event %d: block %d, which it names, is missing (%v)", id, block, err)
	}
}

// listing checks the listing rows of an entry.
func (c *checker) listing(id uint64, e *entryV1, listed uint32, blocks *blockCursor) error {
	if listed > 0 && uint64(e.First)+uint64(e.Count) > uint64(listed) {
		c.report("event %d: lists ops %d to %d, the next op is %d", id, e.First, e.First+e.Count, listed)
	}
	ops := uint32(0)
	lower, upper := e.listing()
	err := c.each(lower, upper, func(key, value []byte) error {
		_, first, err := parseNumberedKey(spaceListing, key)
		if err != nil {
			return err
		}
		if first < listed {
			c.listed++
		}
		if first-e.First != ops {
			c.report("event %d: a listing row starts at op %d, not %d", id, first-e.First, ops)
		}
		l, err := newListingReader(value)
		for err == nil {
			var more bool
			if more, err = l.next(); !more {
				break
			}
			c.named(id, l.op.block, blocks)
			ops++
		}
		return err
	})
	if ops != e.Count {
		c.report("event %d: the listing has %d ops, the entry says %d", id, ops, e.Count)
	}
	return err
}

// listings counts the listing rows. Entries name all of them, except for rows that an interrupted
// relist left, which the next relist overwrites.
func (c *checker) listings() error {
	var owner Ordinal
	var listed uint32
	n := int64(0)
	err := c.space(spaceListing, func(key, _ []byte) error {
		o, first, err := parseNumberedKey(spaceListing, key)
		if err != nil {
			return err
		}
		if o != owner {
			owner = o
			listed, err = c.listedOf(o)
		}
		if first < listed {
			n++
		}
		return err
	})
	if n != c.listed {
		c.report("%d listing rows, entries name %d", n, c.listed)
	}
	return err
}

// listedOf returns the end of the listings of an ordinal, 0 if it has no owner.
func (c *checker) listedOf(o Ordinal) (listed uint32, err error) {
	err = get(c.r, ordinalKey(nil, spaceOwner, o), func(v []byte) error {
		did, err := parseDID(v)
		if err != nil {
			return err
		}
		r, err := c.s.loadRepo(c.r, did)
		listed = r.Listed
		return err
	})
	if errors.Is(err, ErrNotFound) {
		err = nil // reported as a stray
	}
	return listed, err
}
