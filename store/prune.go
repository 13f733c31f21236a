package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// pruneEntries, pruneBlocks and pruneDropped bound one page of pruning to some 10 ms of work.
	pruneEntries = 1000
	pruneBlocks  = 4096
	pruneDropped = 4096
	// pruneRepos bounds the repositories of one batch, whose locks it holds for about 20 µs each
	// while live commits of them wait.
	pruneRepos = 64
	// listingRowsFew is the number of listing rows up to which an entry's are deleted one by one.
	// An import of some hundred records has one or two; a range tombstone for each would slow down
	// nearby reads.
	listingRowsFew = 16
)

// pruner deletes rows that only events below the tail refer to. Pages are serialized.
type pruner struct {
	mu sync.Mutex
	// superseded, dropped and lapsed (lapse.go) are the lowest keys at which each keyspace may have a
	// row: earlier rows were deleted, and a scan should not step over their tombstones again. Rows are
	// added at the next event id only, which is the tail or above, so that no earlier row appears. mu
	// guards.
	superseded, dropped, lapsed []byte
}

// CollectGarbage deletes what nothing refers to any more: blocks that were superseded, and ordinals
// that were dropped, by events that Prune has removed, the rows of abandoned ordinals, and in an
// ephemeral store what removed events wrote. It calls
// progress after each page with the number of pages. When ctx ends it stops after a page, and a
// later call continues. Calls wait for each other.
func (s *Store) CollectGarbage(ctx context.Context, progress func(done, total int64)) error {
	for pages, more := int64(0), true; more; pages++ {
		err := ctx.Err()
		if err == nil {
			more, err = s.garbagePage(ctx)
		}
		if err != nil {
			return fmt.Errorf("delete superseded blocks: %w", err)
		}
		progress(pages+1, 0)
	}
	if err := s.collect(ctx); err != nil {
		return fmt.Errorf("collect the rows of abandoned ordinals: %w", err)
	}
	return nil
}

// garbagePage deletes some superseded blocks and some dropped ordinals, so that each kind makes
// progress. It waits for the disk once. The order of its batches does not matter: a crash keeps a
// prefix of them, and the next page goes on from there.
func (s *Store) garbagePage(ctx context.Context) (more bool, err error) {
	p := &s.pruner
	p.mu.Lock()
	defer p.mu.Unlock()
	var waits []func() error
	commit := func(b *Batch) error {
		wait, err := b.Commit()
		if err == nil {
			waits = append(waits, wait)
		}
		return err
	}
	for _, step := range []func(context.Context, func(*Batch) error) (bool, error){
		s.pruneSuperseded, s.pruneDropped, s.pruneLapsed} {
		if err == nil {
			var again bool
			again, err = step(ctx, commit)
			more = more || again
		}
	}
	for _, wait := range waits {
		err = errors.Join(err, wait())
	}
	return more, err
}

// pruneEntries removes from the log up to pruneEntries entries that end before event to, whole
// entries at a time, with their listings. The tail moves in memory first: ReadLog takes its view
// before it looks at the tail. A reader below the new tail gets ErrOutdatedCursor.
func (s *Store) pruneEntries(to uint64) (more bool, err error) {
	s.pruner.mu.Lock()
	defer s.pruner.mu.Unlock()
	b := s.NewBatch()
	tail, events, n := s.Tail(), uint64(0), 0
	to = min(to, s.Head()+1)
	var listed []entryV1
	err = scan(s.db, eventKey(nil, tail), eventKey(nil, max(tail, to)),
		func(key, value []byte) (bool, error) {
			id, err := parseEventKey(key)
			if err != nil {
				return false, err
			}
			var e entryV1
			if err := s.codec.decode(value, &e); err != nil {
				return false, err
			}
			if id+e.ids() > to {
				return false, nil
			}
			if n == pruneEntries {
				more = true
				return false, nil
			}
			n++
			events += e.ids()
			tail = id + e.ids()
			if s.ephemeral {
				return true, nil // the entry leads to what it wrote: see lapse.go
			}
			b.delete(key)
			if e.listed() {
				e.Ops = nil
				listed = append(listed, e)
			}
			return true, nil
		})
	if err == nil && len(listed) > 0 {
		err = s.pruneListings(b, listed)
	}
	if err != nil || n == 0 {
		b.Discard()
		return false, err
	}
	b.fail(setMetaNumber(b.b, metaTail, tail))
	b.fail(s.seq.postings.prune(b.b, s.Tail(), tail))
	b.deltas[countEvents] -= int64(events)
	s.seq.tail.Store(tail)
	return more, b.CommitSync()
}

// pruneListings deletes the listing rows of entries.
func (s *Store) pruneListings(b *Batch, entries []entryV1) error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceListing},
		UpperBound: spaceEnd(spaceListing)})
	if err != nil {
		return engineError(err)
	}
	for i := range entries {
		lower, upper := entries[i].listing()
		b.fail(deleteFew(b.b, it, lower, upper))
	}
	return errors.Join(b.err, engineError(it.Close()))
}

// deleteFew deletes the rows of [lower, upper): one by one when they are few, else by a range
// tombstone.
func deleteFew(b *pebble.Batch, it *pebble.Iterator, lower, upper []byte) error {
	n := 0
	for ok := it.SeekGE(lower); ok && bytes.Compare(it.Key(), upper) < 0; ok = it.Next() {
		if n++; n > listingRowsFew {
			return b.DeleteRange(lower, upper, nil)
		}
		if err := b.Delete(it.Key(), nil); err != nil {
			return err
		}
	}
	return nil
}

// supersededRow is a row of the keyspace of superseded blocks.
type supersededRow struct {
	key     []byte
	ordinal Ordinal
	block   uint32
}

// pruneSuperseded deletes up to pruneBlocks blocks that were superseded below the tail. The row of
// each repository counts its blocks, so that it is written under the repository's lock.
func (s *Store) pruneSuperseded(ctx context.Context, commit func(*Batch) error) (more bool,
	err error) {
	rows := map[Ordinal][]supersededRow{}
	n := 0
	end := supersededKey(nil, s.Tail(), 0, 0)
	front := end
	from := max(string(s.pruner.superseded), string(rune(spaceSuperseded)))
	err = scan(s.db, []byte(from), []byte(max(from, string(end))), func(key, _ []byte) (bool, error) {
		if n == pruneBlocks {
			front, more = bytes.Clone(key), true
			return false, nil
		}
		_, o, block, err := parseSupersededKey(key)
		rows[o] = append(rows[o], supersededRow{bytes.Clone(key), o, block})
		n++
		return true, err
	})
	if err != nil {
		return false, err
	}
	byDID, err := s.ownersOf(rows)
	if err != nil {
		return false, err
	}
	for dids := range slices.Chunk(slices.Sorted(maps.Keys(byDID)), pruneRepos) {
		if err := errors.Join(ctx.Err(), s.pruneBlocksOf(dids, byDID, commit)); err != nil {
			return false, err
		}
	}
	s.pruner.superseded = front
	return more, nil
}

// ownersOf groups the rows by the DID of the repository with their ordinal, or "" if there is none.
// A repository may have rows of two ordinals, one of them from before it was wiped.
func (s *Store) ownersOf(
	rows map[Ordinal][]supersededRow,
) (byDID map[string][]supersededRow, err error) {
	byDID = map[string][]supersededRow{}
	for o, some := range rows {
		did := ""
		err := get(s.db, ordinalKey(nil, spaceOwner, o), func(v []byte) (err error) {
			did, err = parseDID(v)
			return err
		})
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		byDID[did] = append(byDID[did], some...)
	}
	return byDID, nil
}

// pruneBlocksOf deletes the blocks of some repositories, given in order of DID, in one batch.
// Blocks of an ordinal that no repository has are left to the collector.
func (s *Store) pruneBlocksOf(dids []string, byDID map[string][]supersededRow,
	commit func(*Batch) error) error {
	b := s.NewBatch()
	for _, did := range dids {
		var r Repo
		if did != "" {
			defer s.Lock(did)()
			var err error
			if r, err = s.RepoOrNew(did); err != nil {
				b.Discard()
				return err
			}
		}
		blocks := r.Blocks
		for _, row := range byDID[did] {
			b.delete(row.key)
			if did != "" && r.Ordinal == row.ordinal && row.block >= r.Lapsed {
				b.delete(numberedKey(b.key[:0], spaceBlock, row.ordinal, row.block))
				r.Blocks--
			}
		}
		if r.Blocks != blocks {
			b.PutRepo(&r)
		}
	}
	return commit(b)
}

// pruneDropped deletes up to pruneDropped ordinals of dropped repositories whose events have left
// the log, and the archive: there too they let the deletes of the drop be shown.
func (s *Store) pruneDropped(_ context.Context, commit func(*Batch) error) (more bool, err error) {
	b := s.NewBatch()
	// A repository that is dropped while the log is empty gets a row at the tail itself, also after
	// this scan.
	tail := s.Oldest()
	end := droppedAtKey(nil, tail+1, 0)
	front := end
	if s.Head() < tail {
		front = droppedAtKey(nil, tail, 0)
	}
	from := max(string(s.pruner.dropped), string(rune(spaceDroppedAt)))
	err = scan(s.db, []byte(from), []byte(max(from, string(end))), func(key, _ []byte) (bool, error) {
		if b.b.Count() >= 2*pruneDropped {
			front, more = bytes.Clone(key), true
			return false, nil
		}
		_, o, err := parseDroppedAtKey(key)
		b.delete(key)
		b.delete(ordinalKey(b.key[:0], spaceDropped, o))
		return true, err
	})
	if err != nil || b.b.Empty() {
		b.Discard()
		return false, err
	}
	s.pruner.dropped = front
	return more, commit(b)
}
