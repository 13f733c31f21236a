package store

// writtenBlocks are the blocks of a repository that entries of the log wrote.
type writtenBlocks struct {
	imported uint32 // blocks below it are those of an import
	lapses   bool   // the import is below the tail
	commits  blockSet
}

func (w *writtenBlocks) has(block uint32) bool {
	return w != nil && (block < w.imported || w.commits.has(block))
}

// isLapsing reports whether a block is one of an import of which a part has gone: its references
// are not counted any more.
func isLapsing(c *checker, o Ordinal, block uint32) bool {
	w := c.events[o]
	return block < c.row.Lapsed && w != nil && w.lapses && block < w.imported
}

// gatherWritten gathers, in an ephemeral store, the blocks that the entries of the log wrote. A
// record row that names any other should have gone with the entry that wrote it.
func gatherWritten(c *checker) error {
	if !c.s.ephemeral {
		return nil
	}
	c.events = map[Ordinal]*writtenBlocks{}
	return c.space(spaceEvent, func(key, value []byte) error {
		id, err := parseEventKey(key)
		if err != nil {
			return err
		}
		var e entryV1
		if err := c.s.codec.decode(value, &e); err != nil || e.Ordinal == 0 {
			return err
		}
		w := c.events[e.Ordinal]
		if w == nil {
			w = new(writtenBlocks)
			c.events[e.Ordinal] = w
		}
		if e.Blocks > 0 {
			w.imported, w.lapses = e.Blocks, id < c.tail
		}
		for _, op := range e.Ops {
			if op.Action != Delete {
				w.commits.add(op.Block)
			}
		}
		return nil
	})
}

// countLapsed counts the listing rows of an entry below the tail. Some of them may have gone.
func countLapsed(c *checker, e *entryV1) error {
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
