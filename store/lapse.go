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
// the tail until the collector has deleted what the entry wrote. Each block was written by one
// entry, and a record row names the block of its last write. So a record row goes with the entry
// if it names a block of it, and stays if a later entry has written the record. The batch that
// deletes the last of an entry's rows deletes the entry too: a crash leaves entries that are looked
// at again.
//
// Imports are the bulk, and go as ranges: neighbouring repositories together if nothing of them
// stays, else the records between those that stay, a part of a large import at a time, and then the
// blocks. Repo.Lapsed has the blocks whose references are not counted any more.

const (
	// lapseOps bounds the ops of commits in one batch, and lapseRows the rows of imports that it
	// reads: each some 5 ms of work under the locks of its repositories. A page has about lapsePage
	// of them, and waits for the disk once.
	lapseOps  = 1024
	lapseRows = 4096
	lapsePage = 4 * lapseRows
	// lapseRowsFew is the number of records up to which an import, or neighbouring ones, are deleted
	// one by one. Range tombstones for fewer would slow down nearby reads.
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
	for left := lapsePage; left > 0; {
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
	dids, ops := map[string]bool{}, 0
	take := func(key, value []byte) (bool, error) {
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
		n := len(entries)
		if n > 0 && (len(dids) > pruneRepos || ops > lapseOps || n == pruneEntries) {
			return false, nil
		}
		entries = append(entries, e)
		return true, nil
	}
	err = scan(s.db, []byte(from), []byte(max(from, string(end))), take)
	if err == nil && len(entries) == 0 {
		s.pruner.lapsed = end
	}
	return entries, err
}

// lapsing is a batch that deletes what entries have written.
type lapsing struct {
	b     *Batch
	left  int             // rows of imports that the batch may still read
	ops   int             // looked at
	first []byte          // key of the first entry that stays; nil: none stays
	whole map[string]bool // repositories of which everything was deleted
	rows  *pebble.Iterator
}

// pruneLapsedOf deletes what entries have written, in one batch, and the entries. Of imports that
// are large it deletes a part, and leaves the entry.
func (s *Store) pruneLapsedOf(
	entries []lapsedEntry, commit func(*Batch) error,
) (ops int, err error) {
	byDID := map[string][]lapsedEntry{}
	for _, e := range entries {
		byDID[e.did] = append(byDID[e.did], e)
	}
	l := lapsing{b: s.NewBatch(), left: lapseRows}
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
	collections, err := b.census.drop(r.Ordinal)
	if err != nil {
		return err
	}
	for _, c := range collections {
		b.counts = append(b.counts, collectionCounted{collectionOf{r.Ordinal, c.name}, 0})
	}
	l.ops += len(collections)
	r.Records, r.Blocks, r.Collections, r.Lapsed = 0, 0, 0, r.NextBlock
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
		case e.listed() && e.Count > lapseRowsFew:
			done, err = l.large(&a, e)
		case e.listed():
			err = l.small(&a, e)
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

// small deletes what a small import wrote, with its listing.
func (l *lapsing) small(a *application, e *lapsedEntry) error {
	lower, upper := e.listing()
	return scan(l.b.s.db, lower, upper, func(key, value []byte) (bool, error) {
		l.b.delete(key)
		return true, eachListed(value, func(op *listingOp) error { return l.op(a, op.path, op.block) })
	})
}

// eachListed calls fn for each op of a listing row.
func eachListed(value []byte, fn func(op *listingOp) error) error {
	rows, err := newListingReader(value)
	for err == nil {
		var more bool
		if more, err = rows.next(); err != nil || !more {
			break
		}
		err = fn(&rows.op)
	}
	return err
}

// large deletes records that a large import wrote, from the first row of its listing that is left
// on, as far as the batch may, and those rows. With the last of them it deletes the blocks.
func (l *lapsing) large(a *application, e *lapsedEntry) (done bool, err error) {
	b, r := a.b, a.r
	lower, upper := e.listing()
	var first, last []byte // paths
	done = true
	err = scan(b.s.db, lower, upper, func(key, value []byte) (bool, error) {
		if l.left <= 0 {
			done = false
			return false, nil
		}
		b.delete(key)
		return true, eachListed(value, func(op *listingOp) error {
			if first == nil {
				first = bytes.Clone(op.path)
			}
			last = append(last[:0], op.path...)
			l.left--
			return nil
		})
	})
	r.Lapsed = max(r.Lapsed, e.Blocks)
	if err == nil && first != nil {
		err = l.between(a, first, last, e.Blocks)
	}
	if err != nil || !done {
		return false, err
	}
	for _, space := range [...]byte{spaceBlock, spaceRef} {
		b.fail(b.b.DeleteRange(numberedKey(nil, space, r.Ordinal, 0),
			numberedKey(nil, space, r.Ordinal, e.Blocks), nil))
	}
	r.Blocks, err = b.s.blocksFrom(r.Ordinal, e.Blocks)
	return true, err
}

// between deletes the records at the paths first to last that name a block below end.
func (l *lapsing) between(a *application, first, last []byte, end uint32) error {
	b, r := a.b, a.r
	var run [][]byte // keys of records that go, one behind the other
	n := 0           // of them, also beyond lapseRowsFew
	flush := func(upper []byte) {
		if n > lapseRowsFew {
			b.fail(b.b.DeleteRange(run[0], upper, nil))
			run = nil
		}
		for _, key := range run {
			b.delete(key)
		}
		run, n = run[:0], 0
	}
	lower, upper := recordKey(nil, r.Ordinal, first), append(recordKey(nil, r.Ordinal, last), 0)
	err := scan(b.s.db, lower, upper, func(key, value []byte) (bool, error) {
		l.ops++
		row, err := parseRecordRow(value)
		if err != nil {
			return false, err
		}
		if row.block >= end {
			flush(key)
			return true, b.err
		}
		if n++; n <= lapseRowsFew {
			run = append(run, bytes.Clone(key))
		}
		r.moved(row.place(), absent)
		l.uncount(a, key[1+ordinalBytes:], row)
		return true, nil
	})
	flush(upper)
	return errors.Join(err, b.err)
}

// uncount counts a record less in its collection.
func (l *lapsing) uncount(a *application, path []byte, row recordRow) {
	collection, _, valid := repo.SplitPath(path)
	if !valid || row.place() != shown {
		return
	}
	if n := len(a.b.changes); n == 0 || !bytes.Equal(a.b.changes[n-1].collection, collection) {
		collection = bytes.Clone(collection)
	}
	a.change(collection).d--
}

// blocksFrom counts the blocks of an ordinal from a number on.
func (s *Store) blocksFrom(o Ordinal, from uint32) (n int64, err error) {
	err = scan(s.db, numberedKey(nil, spaceBlock, o, from), ordinalKey(nil, spaceBlock, o+1),
		func(_, _ []byte) (bool, error) { n++; return true, nil })
	return n, err
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
	l.uncount(a, path, row)
	left, err := b.unref(r, block)
	if err == nil && left == 0 {
		b.delete(numberedKey(b.key[:0], spaceBlock, r.Ordinal, block))
		r.Blocks--
	}
	return err
}
