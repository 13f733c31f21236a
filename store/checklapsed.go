package store

// writtenBlocks are the blocks of a repository that entries of the log wrote.
type writtenBlocks struct {
	imported uint32 // blocks below it are those of an import
	commits  blockSet
}

func (w *writtenBlocks) has(block uint32) bool {
	return w != nil && (block < w.imported || w.commits.has(block))
}

// written gathers, in an ephemeral store, the blocks that the entries of the log wrote. A record row
// that names any other should have gone with the entry that wrote it.
func (c *checker) written() error {
	if !c.s.ephemeral {
		return nil
	}
	c.events = map[Ordinal]*writtenBlocks{}
	return c.space(spaceEvent, func(_, value []byte) error {
		var e entryV1
		if err := c.s.codec.decode(value, &e); err != nil || e.Ordinal == 0 {
			return err
		}
		w := c.events[e.Ordinal]
		if w == nil {
			w = new(writtenBlocks)
			c.events[e.Ordinal] = w
		}
		w.imported = max(w.imported, e.Blocks)
		for _, op := range e.Ops {
			if op.Action != Delete {
				w.commits.add(op.Block)
			}
		}
		return nil
	})
}

// lapsed counts the listing rows of an entry below the tail. Some of them may have gone already.
func (c *checker) lapsed(e *entryV1) error {
	if !e.listed() {
		return nil
	}
	listed, err := c.listedOf(e.Ordinal)
	if err != nil {
		return err
	}
	lower, upper := e.listing()
	return c.each(lower, upper, func(key, _ []byte) error {
		_, first, err := parseNumberedKey(spaceListing, key)
		if first < listed {
			c.listed++
		}
		return err
	})
}
