package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// pruneInterval is how often retention is looked at.
	pruneInterval = time.Minute
	// pruneEntries and pruneBlocks bound one batch of pruning.
	pruneEntries = 1000
	pruneBlocks  = 1000
)

func (s *Store) runPrune(ctx context.Context) error {
	t := time.NewTicker(pruneInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			if err := s.Prune(ctx, s.now().Add(-s.opts.Retention)); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}

// Prune takes entries older than before out of the log, whole entries at a time, and then
// the blocks that only they held. A reader below the new tail gets ErrOutdatedCursor.
func (s *Store) Prune(ctx context.Context, before time.Time) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := s.pruneEntries(before.UnixMicro())
		if err != nil {
			return fmt.Errorf("prune the log: %w", err)
		}
		if n < pruneEntries {
			break
		}
	}
	if err := s.pruneDropped(); err != nil {
		return fmt.Errorf("prune dropped ordinals: %w", err)
	}
	// Each batch goes on behind the one before: its deleted rows pile up there.
	for from := []byte{spaceSuperseded}; from != nil; {
		var err error
		if from, err = s.pruneSuperseded(ctx, from); err != nil {
			return fmt.Errorf("prune superseded blocks: %w", err)
		}
	}
	return nil
}

// pruneEntries moves the tail past up to pruneEntries entries and deletes them. The tail
// moves in memory first: ReadLog takes its snapshot before it looks at the tail.
func (s *Store) pruneEntries(before int64) (n int, err error) {
	b := s.NewBatch()
	tail, events := s.Tail(), uint64(0)
	head := s.Head()
	err = scan(s.db, eventKey(nil, tail), spaceEnd(spaceEvent), func(key, value []byte) (bool, error) {
		id, err := parseEventKey(key)
		if err != nil {
			return false, err
		}
		var e entryV1
		if err := s.codec.decode(value, &e); err != nil {
			return false, err
		}
		if e.Time >= before || id > head || n == pruneEntries {
			return false, nil
		}
		n++
		events += e.ids()
		tail = id + e.ids()
		b.delete(key)
		if e.listed() {
			lower, upper := e.listing()
			b.fail(b.b.DeleteRange(lower, upper, nil))
		}
		return true, nil
	})
	if err != nil || n == 0 {
		b.Discard()
		return 0, err
	}
	b.fail(setMetaNumber(b.b, metaTail, tail))
	b.deltas[countEvents] -= int64(events)
	s.seq.tail.Store(tail)
	return n, b.CommitSync()
}

// pruneSuperseded deletes up to pruneBlocks blocks superseded below the tail, repository by
// repository, since each counts its blocks. next is where the rows after them begin, nil at
// the end.
func (s *Store) pruneSuperseded(ctx context.Context, from []byte) (next []byte, err error) {
	rows := map[Ordinal][][]byte{}
	n := 0
	err = scan(s.db, from, supersededKey(nil, s.Tail(), 0, 0), func(key, _ []byte) (bool, error) {
		if n == pruneBlocks {
			next = bytes.Clone(key)
			return false, nil
		}
		_, o, _, err := parseSupersededKey(key)
		rows[o] = append(rows[o], bytes.Clone(key))
		n++
		return true, err
	})
	if err != nil {
		return nil, err
	}
	for o, keys := range rows {
		if err := errors.Join(ctx.Err(), s.pruneBlocksOf(o, keys)); err != nil {
			return nil, err
		}
	}
	return next, nil
}

func (s *Store) pruneBlocksOf(o Ordinal, keys [][]byte) error {
	var did string
	err := get(s.db, ordinalKey(nil, spaceOwner, o), func(v []byte) (err error) {
		did, err = parseDID(v)
		return err
	})
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	b := s.NewBatch()
	for _, k := range keys {
		b.delete(k)
	}
	if did != "" {
		unlock := s.Lock(did)
		defer unlock()
		r, err := s.RepoOrNew(did)
		if err != nil {
			b.Discard()
			return err
		}
		if r.Ordinal == o {
			for _, k := range keys {
				_, _, block, err := parseSupersededKey(k)
				b.fail(err)
				b.delete(numberedKey(b.key[:0], spaceBlock, o, block))
			}
			r.Blocks -= int64(len(keys))
			b.PutRepo(&r)
		}
	}
	return b.CommitSync()
}
