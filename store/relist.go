package store

import (
	"bytes"
	"errors"
	"fmt"
	"math"

	"github.com/cockroachdb/pebble/v2"
)

// Relist adds one entry to the log that lists all current records of r again (live = false), for an
// account that is shown again. It must not follow Apply in the same batch. The listing of a large
// repository is written in batches of its own before. Relist changes r; the caller writes it by
// PutRepo.
//
// When the op numbers are used up, and in an ephemeral store, which may not have the records any
// more, r is wiped instead, and must be fetched as if for the first time.
//
// The rows of the listing begin at op r.Listed. No entry names rows that a crash or a discarded
// batch leaves there, and the next relist begins by deleting them.
func (b *Batch) Relist(r *Repo) error {
	if r.Ordinal == 0 {
		return fmt.Errorf("relist %s: the repository was never imported", r.DID)
	}
	if b.touched[r.Ordinal] {
		return fmt.Errorf("relist %s after Apply in one batch: reads would not see it", r.DID)
	}
	if b.s.ephemeral || int64(r.Listed)+r.Records > math.MaxUint32 {
		return b.Wipe(r)
	}
	l := relisting{s: b.s, rows: b.s.db.NewBatch(), ordinal: r.Ordinal}
	err := l.run(r)
	if err == nil {
		err = b.b.Apply(l.rows, nil)
	}
	if err := errors.Join(err, l.close()); err != nil {
		return fmt.Errorf("relist %s: %w", r.DID, err)
	}
	if first := r.Listed; l.w.next > first {
		r.Listed = l.w.next
		b.entries = append(b.entries,
			entry{entryV1: entryV1{Kind: entryRelist, DID: appendDID(nil, r.DID), Rev: r.Rev,
				Ordinal: r.Ordinal, First: first, Count: r.Listed - first}, collections: l.collections})
	}
	return b.err
}

// relisting writes one listing.
type relisting struct {
	s       *Store
	ordinal Ordinal
	rows    *pebble.Batch // rows not applied yet; nil if a broken engine may hold them
	w       listingWriter
	key     []byte
	// collections are those of the listing, in its order.
	collections []collectionCount
}

func (l *relisting) run(r *Repo) error {
	l.w.begin(r.Listed)
	end := ordinalKey(nil, spaceListing, l.ordinal+1)
	err := l.clean(numberedKey(nil, spaceListing, l.ordinal, r.Listed), end)
	if err != nil {
		return err
	}
	err = l.s.eachRecord(l.ordinal, func(path []byte, row recordRow) error {
		if row.place() != shown {
			return nil
		}
		collection, _, _ := bytes.Cut(path, []byte{'/'})
		l.collections = countListed(l.collections, collection)
		if !l.w.add(path, row.block) {
			return nil
		}
		return l.closeRow()
	})
	if err != nil || l.w.empty() {
		return err
	}
	return l.closeRow()
}

// clean deletes the rows that an interrupted relist left, one by one. They are rare, and a range
// tombstone for each relist would make reads slow (Batch.abandon).
func (l *relisting) clean(lower, upper []byte) error {
	it, err := l.s.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return engineError(err)
	}
	return errors.Join(deleteFew(l.rows, it, lower, upper), engineError(it.Close()))
}

// closeRow takes over the open row, and applies the gathered rows when they are many.
func (l *relisting) closeRow() error {
	l.key = numberedKey(l.key[:0], spaceListing, l.ordinal, l.w.first)
	l.s.growth.wrote(l.key, l.w.row)
	err := l.rows.Set(l.key, l.w.row, nil)
	l.w.begin(l.w.next)
	if err != nil || l.rows.Len() < relistBatchBytes {
		return err
	}
	return l.flush()
}

// flush applies the gathered rows. They are not synced: the batch with the entry follows them in
// the write-ahead log.
func (l *relisting) flush() error {
	b := l.rows
	l.rows = nil
	if err := l.s.apply(b, pebble.NoSync); err != nil {
		return err
	}
	l.rows = l.s.db.NewBatch()
	l.s.opts.Step("relist batch")
	return nil
}

func (l *relisting) close() error {
	if l.rows == nil {
		return nil
	}
	return l.rows.Close()
}
