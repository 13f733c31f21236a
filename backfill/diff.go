package backfill

import (
	"bytes"
	"context"
	"errors"

	"cistern/backfill/fetch"
	"cistern/backfill/refilter"
	"cistern/ingest/repo"
	"cistern/store"
)

// difference is the merge of a verified copy with the rows we hold.
type difference struct {
	t     *task
	rows  *store.Rows
	more  bool
	ops   []store.Op
	bytes int
}

// diff writes what has changed since the copy we hold. Each batch is consistent in itself, for its
// records and their events go together; rev, data and commit change with the last. A crash between
// leaves a pending row, and its next task finds by the same merge what is still to be done. It runs
// even when the rev is the one we hold, since such a crash may lie behind.
func (t *task) diff(ctx context.Context, c *fetch.Copy) (outcome, error) {
	if err := t.reveal(); err != nil {
		return outcome{}, err
	}
	rows, err := t.r.store.Rows(t.row.Ordinal)
	if err != nil {
		return outcome{}, ours(err)
	}
	d := &difference{t: t, rows: rows, more: rows.Next()}
	err = d.merge(ctx, c)
	if err == nil {
		err = ctx.Err()
	}
	if cerr := rows.Close(); cerr != nil {
		err = errors.Join(ours(cerr), err)
	}
	if err != nil {
		return outcome{}, err
	}
	row, err := d.flush(t.complete)
	if err != nil {
		return outcome{}, err
	}
	return t.done(row), nil
}

func (d *difference) merge(ctx context.Context, c *fetch.Copy) error {
	err := c.Walk(func(l repo.Leaf) error {
		for d.more {
			row := d.rows.Row()
			order := bytes.Compare(row.Path, l.Key)
			if order > 0 {
				break
			}
			if order < 0 {
				if err := d.add(ctx, store.Op{Path: row.Path}); err != nil {
					return err
				}
			}
			if order == 0 {
				return d.meet(ctx, row, l)
			}
			d.more = d.rows.Next()
		}
		if !d.keeps(l.Key) {
			return nil
		}
		return d.add(ctx, store.Op{Path: l.Key, CID: l.CID, Record: l.Record})
	})
	for err == nil && d.more {
		err = d.add(ctx, store.Op{Path: d.rows.Row().Path})
		d.more = d.rows.Next()
	}
	return err
}

// meet compares a row with the leaf of its key, and goes to the next.
func (d *difference) meet(ctx context.Context, row store.Row, l repo.Leaf) (err error) {
	switch {
	case !d.keeps(l.Key):
		err = d.add(ctx, store.Op{Path: l.Key})
	case row.CID != l.CID:
		err = d.add(ctx, store.Op{Path: l.Key, CID: l.CID, Record: l.Record})
	case !refilter.InPlace(d.t.filter.Filter, row):
		err = d.add(ctx, store.Op{Path: l.Key, Keep: true})
	}
	d.more = d.rows.Next()
	return err
}

// keeps says whether the filter of the task has a record held, shown or not.
func (d *difference) keeps(path []byte) bool {
	f := d.t.filter
	if refilter.KeepsAll(f.Filter) {
		return true
	}
	collection, _, valid := repo.SplitPath(path)
	return valid && f.Wants(collection)
}

// add notes one change, and writes those gathered when they are many.
func (d *difference) add(ctx context.Context, op store.Op) error {
	if op.CID.Defined() && op.Record == nil { // one of no bytes is no such
		return store.ErrStale // it was held as the fetch began, and was not fetched again
	}
	op.Path, op.Record = bytes.Clone(op.Path), bytes.Clone(op.Record)
	d.ops = append(d.ops, op)
	d.bytes += len(op.Path) + len(op.Record)
	if len(d.ops) < diffOpsMax && d.bytes < diffBytesMax {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err := d.flush(nil)
	return err
}

// flush writes the changes gathered, and what complete adds to them.
func (d *difference) flush(complete func(*store.Batch, *store.Repo)) (store.Repo, error) {
	row, err := d.t.update(func(b *store.Batch, row *store.Repo) error {
		row.Torn = true // no longer what row.Rev names, so that only a copy can complete it
		row.TornRev = max(row.TornRev, d.t.commit.Rev)
		if row.Filter != d.t.filter.Selection {
			row.Filter, row.Sweep = d.t.filter.Selection, true // Apply chooses by it from here on
		}
		if len(d.ops) > 0 {
			if err := b.Apply(row, false, d.t.commit.Rev, d.ops); err != nil {
				return err
			}
		}
		if complete != nil {
			complete(b, row)
		}
		return nil
	})
	d.ops, d.bytes = d.ops[:0], 0
	return row, err
}

// reveal shows an account that was hidden, in a batch of its own before any difference: readers pass
// over events of accounts that are hidden when they come by. After a crash behind it the next task
// finds the account shown, so that its records are listed once.
func (t *task) reveal() error {
	if !t.row.Status.Hidden() {
		return nil
	}
	row, err := t.update(reveal)
	if err == nil && row.Ordinal == 0 {
		return store.ErrStale // wiped: the next attempt is a first copy
	}
	return err
}
