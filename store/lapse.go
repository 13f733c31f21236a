package store

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"

	"cistern/ingest/repo"

	"github.com/cockroachdb/pebble/v2"
)

// In an ephemeral store, an entry that Prune has removed from the log lapses: its row stays below
// the tail until the collector has deleted what the entry wrote. Every block has been written by one
// entry, and a record row names the block of the entry that wrote it last. So a record row goes with
// the entry if it names a block of it, and stays if a later entry has written the record. The batch
// that deletes the last of an entry's rows deletes the entry too: a crash leaves entries that are
// looked at again.

const (
	// lapseOps bounds the ops of one batch, some 5 ms of work under the locks of its repositories.
	lapseOps = 1024
	// lapseRowsFew is the number of record rows up to which those of neighbouring ordinals are
	// deleted one by one. Range tombstones for fewer would slow down nearby reads.
	lapseRowsFew = 64
)

// lapsedEntry is an entry below the tail.
type lapsedEntry struct {
	entryV1
	key []byte
	did string
}

// pruneLapsed deletes what some entries below the tail of an ephemeral store have written, and the
// entries.
func (s *Store) pruneLapsed(ctx context.Context, commit func(*Batch) error) (more bool, err error) {
	if !s.ephemeral {
		return false, nil
	}
	for left := pruneBlocks; left > 0; {
		entries, err := s.lapsedEntries()
		if err != nil || len(entries) == 0 {
			return false, err
		}
		n, err := s.pruneLapsedOf(entries, commit)
		if err := errors.Join(err, ctx.Err()); err != nil {
			return false, err
		}
		left -= max(n, len(entries))
	}
	return true, nil
}

// lapsedEntries returns the oldest entries below the tail: those of a batch.
func (s *Store) lapsedEntries() (entries []lapsedEntry, err error) {
	from := max(string(s.pruner.lapsed), string(rune(spaceEvent)))
	end := eventKey(nil, s.Tail())
	front, dids, ops := end, map[string]bool{}, 0
	err = scan(s.db, []byte(from), []byte(max(from, string(end))), func(key, value []byte) (bool, error) {
		e := lapsedEntry{key: bytes.Clone(key)}
		if err := s.codec.decode(value, &e.entryV1); err != nil {
			return false, err
		}
		var err error
		if e.did, err = parseDID(e.DID); err != nil {
			return false, err
		}
		dids[e.did] = true
		ops += len(e.Ops)
		if len(entries) > 0 && (len(dids) > pruneRepos || ops > lapseOps || len(entries) == pruneEntries) {
			front = e.key
			return false, nil
		}
		entries = append(entries, e)
		return true, nil
	})
	if err == nil && len(entries) == 0 {
		s.pruner.lapsed = front
	}
	return entries, err
}

// lapsing is a batch that deletes what entries have written.
type lapsing struct {
	b     *Batch
	left  int             // ops of imports that the batch may still look at
	ops   int             // looked at, or deleted as ranges
	first []byte          // key of the first entry that stays; nil: none stays
	whole map[string]bool // repositories of which everything was deleted
	rows  *pebble.Iterator
}

// pruneLapsedOf deletes what entries have written, in one batch, and the entries. Of imports that
// are large it deletes a part, and leaves the entry.
func (s *Store) pruneLapsedOf(entries []lapsedEntry, commit func(*Batch) error) (ops int, err error) {
	byDID := map[string][]lapsedEntry{}
	for _, e := range entries {
		byDID[e.did] = append(byDID[e.did], e)
	}
	l := lapsing{b: s.NewBatch(), left: lapseOps}
	repos := make([]Repo, 0, len(byDID))
	for _, did := range slices.Sorted(maps.Keys(byDID)) {
		defer s.Lock(did)()
		r, err := s.RepoOrNew(did)
		if err != nil {
			l.b.Discard()
			return 0, err
		}
		repos = append(repos, r)
	}
	if err := l.run(repos, byDID); err != nil {
		l.b.Discard()
		return 0, err
	}
	front := entries[len(entries)-1].key
	if front = append(bytes.Clone(front), 0); l.first != nil {
		front = l.first
	}
	err = commit(l.b)
	if err == nil {
		s.pruner.lapsed = front
	}
	return l.ops, err
}

// run adds the deletions to the batch.
func (l *lapsing) run(repos []Repo, byDID map[string][]lapsedEntry) (err error) {
	s := l.b.s
	l.rows, err = s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceRecord},
		UpperBound: spaceEnd(spaceRecord)})
	if err != nil {
		return engineError(err)
	}
	defer func() { err = errors.Join(err, engineError(l.rows.Close())) }()
	if err := l.deleteWhole(repos, byDID); err != nil {
		return err
	}
	for i := range repos {
		r := &repos[i]
		if err := l.repo(r, byDID[r.DID]); err != nil {
			return err
		}
	}
	return nil
}

// deleteWhole deletes as ranges the rows of repositories of which nothing stays, neighbours
// together, unless they are few.
func (l *lapsing) deleteWhole(repos []Repo, byDID map[string][]lapsedEntry) error {
	l.whole = map[string]bool{}
	var whole []*Repo
	for i := range repos {
		if r := &repos[i]; goesWhole(r, byDID[r.DID]) {
			whole = append(whole, r)
		}
	}
	slices.SortFunc(whole, func(a, b *Repo) int { return cmp.Compare(a.Ordinal, b.Ordinal) })
	for len(whole) > 0 {
		n, rows := 1, whole[0].Records
		for n < len(whole) && whole[n].Ordinal == whole[n-1].Ordinal+1 {
			rows += whole[n].Records
			n++
		}
		if rows > lapseRowsFew {
			for _, r := range whole[:n] {
				if err := l.empty(r); err != nil {
					return err
				}
			}
			err := deleteOrdinals(l.b.b, whole[0].Ordinal, whole[n-1].Ordinal+1)
			if err != nil {
				return err
			}
		}
		whole = whole[n:]
	}
	return nil
}

// goesWhole reports whether the newest block of a repository is of an entry that lapses: then all
// its records and blocks are.
func goesWhole(r *Repo, entries []lapsedEntry) bool {
	newest := uint32(0)
	for i := range entries {
		if e := &entries[i]; e.Ordinal == r.Ordinal {
			newest = max(newest, e.Blocks)
			for j := range e.Ops {
				if op := &e.Ops[j]; op.Action != Delete {
					newest = max(newest, op.Block+1)
				}
			}
		}
	}
	return r.Ordinal != 0 && newest > 0 && newest == r.NextBlock
}

// empty adds to the batch that a repository has no records any more. The caller deletes its bulk
// rows.
func (l *lapsing) empty(r *Repo) error {
	b := l.b
	collections, err := b.s.Collections(r)
	if err != nil {
		return err
	}
	for _, c := range collections {
		b.delete(collectionKey(b.key[:0], []byte(c), r.Ordinal))
		b.counts = append(b.counts, collectionCounted{collectionOf{r.Ordinal, c}, 0})
	}
	b.deltas[countCollections] -= int64(len(collections))
	l.ops += int(min(r.Records, lapseOps))
	r.Records, r.Blocks, r.Collections = 0, 0, 0
	l.whole[r.DID] = true
	return b.err
}

// repo deletes what some entries of a repository have written, and the entries.
func (l *lapsing) repo(r *Repo, entries []lapsedEntry) (err error) {
	b := l.b
	b.changes = b.changes[:0]
	a := application{b: b, r: r}
	for i := range entries {
		e := &entries[i]
		done := true
		switch {
		case e.Ordinal != r.Ordinal || r.Ordinal == 0, l.whole[r.DID]:
			// An account that was wiped or dropped since: the collector deletes its rows.
		case e.listed():
			done, err = l.listing(&a, e)
		default:
			for j := range e.Ops {
				if op := &e.Ops[j]; op.Action != Delete && err == nil {
					err = l.op(&a, op.Path, op.Block)
				}
			}
		}
		if err != nil {
			return err
		}
		if done {
			b.delete(e.key)
		} else if l.first == nil || bytes.Compare(e.key, l.first) < 0 {
			l.first = e.key
		}
	}
	for _, c := range b.changes {
		if err := a.addCollection(c.collection, c.d); err != nil {
			return err
		}
	}
	if r.Ordinal != 0 && (r.Records != r.loaded.records || r.Blocks != r.loaded.blocks) {
		b.PutRepo(r)
	}
	return b.err
}

// listing deletes what an import wrote, as far as the batch may, with the rows of its listing.
func (l *lapsing) listing(a *application, e *lapsedEntry) (done bool, err error) {
	b := l.b
	lower, upper := e.listing()
	done = true
	err = scan(b.s.db, lower, upper, func(key, value []byte) (bool, error) {
		if l.left <= 0 {
			done = false
			return false, nil
		}
		rows, err := newListingReader(value)
		for err == nil {
			var more bool
			if more, err = rows.next(); err != nil || !more {
				break
			}
			l.left--
			err = l.op(a, rows.op.path, rows.op.block)
		}
		b.delete(key)
		return true, err
	})
	return done, err
}

// op deletes the record row at a path if it names a block, and the block when no other row does.
func (l *lapsing) op(a *application, path []byte, block uint32) error {
	b, r := a.b, a.r
	l.ops++
	key := recordKey(b.path[:0], r.Ordinal, path)
	b.path = key
	it := l.rows
	at := func() bool { return it.Valid() && bytes.Equal(it.Key(), key) }
	if it.Valid() && bytes.Compare(it.Key(), key) < 0 {
		it.Next() // the paths of a listing are in order
	}
	if !at() && (!it.SeekGE(key) || !at()) {
		return engineError(it.Error())
	}
	row, err := parseRecordRow(it.Value())
	if err != nil || row.block != block {
		return err
	}
	b.delete(key)
	r.moved(row.place(), absent)
	if collection, _, valid := repo.SplitPath(path); valid && row.place() == shown {
		a.changed(bytes.Clone(collection), -1)
	}
	left, err := b.unref(r, block)
	if err == nil && left == 0 {
		b.delete(numberedKey(b.key[:0], spaceBlock, r.Ordinal, block))
		r.Blocks--
	}
	return err
}

// holdsBlock reports whether a block is stored.
func (s *Store) holdsBlock(o Ordinal, block uint32) (bool, error) {
	return holds(s.db, numberedKey(nil, spaceBlock, o, block))
}
