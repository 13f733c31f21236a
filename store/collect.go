package store

import (
	"context"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// collectOrdinals bounds one batch: four range tombstones of about 100 bytes for each run of
// neighbours are 6 MiB at most, less than half a memtable. After each batch of range tombstones
// the next read sorts all tombstones of the memtable again (100,000 take some 30 ms), so that
// batches must be few: CollectGarbage is called every minute.
const collectOrdinals = 16 << 10

// garbage holds the ordinals whose repository was wiped, dropped, or never became visible, and
// whose bulk rows still stand. Each has a row on disk, written by the batch that abandoned it.
// Nothing refers to the bulk rows any more, and an ordinal is never assigned twice, so that the
// collector may delete them at any time.
type garbage struct {
	mu       sync.Mutex
	ordinals []Ordinal // mu guards: 8 bytes for each
}

func (g *garbage) add(os []Ordinal) {
	if len(os) == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ordinals = append(g.ordinals, os...)
}

// take removes and returns all ordinals.
func (g *garbage) take() []Ordinal {
	g.mu.Lock()
	defer g.mu.Unlock()
	os := g.ordinals
	g.ordinals = nil
	return os
}

// abandon leaves the bulk rows of an ordinal to the collector. Range tombstones in the batch itself
// would make forgetting n repositories cost n²: Pebble sorts all of the memtable's at the next
// read.
func (b *Batch) abandon(o Ordinal) {
	b.set(ordinalKey(b.key[:0], spaceGarbage, o), nil)
	b.abandoned = append(b.abandoned, o)
}

// loadGarbage reads the ordinals that were abandoned but not collected before the store was closed.
func (s *Store) loadGarbage() error {
	return scan(s.db, []byte{spaceGarbage}, spaceEnd(spaceGarbage), func(key, _ []byte) (bool, error) {
		o, err := parseOrdinalKey(spaceGarbage, key)
		s.garbage.add([]Ordinal{o})
		return true, err
	})
}

// collect deletes the bulk rows of all abandoned ordinals, many in one batch and neighbours as one
// range. The batches are not synced: after a crash that loses a batch, its ordinals are collected
// after the next start. When ctx ends, the rest waits for the next call.
func (s *Store) collect(ctx context.Context) error {
	all := s.garbage.take()
	slices.Sort(all)
	for len(all) > 0 {
		if err := ctx.Err(); err != nil {
			s.garbage.add(all)
			return err
		}
		some := all[:min(len(all), collectOrdinals)]
		b := s.db.NewBatch()
		if err := deleteAbandoned(b, some); err != nil {
			return err
		}
		if err := s.apply(b, pebble.NoSync); err != nil {
			return err
		}
		s.opts.Step("collected")
		all = all[len(some):]
	}
	return nil
}

// deleteAbandoned adds the deletion of the bulk rows of ordinals, given in order, and of the rows
// that remember them.
func deleteAbandoned(b *pebble.Batch, all []Ordinal) error {
	var key [1 + ordinalBytes]byte
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n] == all[n-1]+1 {
			n++
		}
		for _, o := range all[:n] {
			if err := b.Delete(ordinalKey(key[:0], spaceGarbage, o), nil); err != nil {
				return err
			}
		}
		if err := deleteOrdinals(b, all[0], all[n-1]+1); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

// deleteOrdinals removes the bulk rows of [from, to).
func deleteOrdinals(b *pebble.Batch, from, to Ordinal) error {
	for _, space := range bulkSpaces {
		if err := b.DeleteRange(ordinalKey(nil, space, from), ordinalKey(nil, space, to),
			nil); err != nil {
			return err
		}
	}
	return nil
}

// bulkSpaces are the keyspaces whose keys begin with the ordinal of the repository.
var bulkSpaces = [...]byte{spaceRecord, spaceBlock, spaceRef, spaceListing}

// isGarbage reports whether an ordinal was abandoned and its bulk rows may still stand.
func isGarbage(r reader, o Ordinal) (bool, error) {
	return holds(r, ordinalKey(nil, spaceGarbage, o))
}

// garbage checks the ordinals that wait for the collector: each was assigned once, and no
// repository has it.
func (c *checker) garbage() error {
	next, err := c.s.metaNumber(c.r, metaOrdinal, 1)
	if err != nil {
		return err
	}
	return c.space(spaceGarbage, func(key, _ []byte) error {
		o, err := parseOrdinalKey(spaceGarbage, key)
		if err != nil {
			return err
		}
		owned, err := holds(c.r, ordinalKey(nil, spaceOwner, o))
		if owned || c.inLease(o) || o == 0 || uint64(o) >= next {
			c.report("abandoned ordinal %d: has an owner (%v), is in an open lease, or is not below the "+
				"next ordinal %d", o, owned, next)
		}
		return err
	})
}
