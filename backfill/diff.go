package backfill

import (
	"bytes"
	"context"
	"errors"

	"cistern/backfill/fetch"
	"cistern/backfill/hosts"
	"cistern/backfill/refilter"
	"cistern/ingest/repo"
	"cistern/store"
)

// difference is the merge of a verified copy with the stored rows.
type difference struct {
	l     *landing
	rows  *store.Rows
	more  bool
	ops   []store.Op
	bytes int
}

// diff writes the changes between the stored copy and c. Each batch is consistent, because a record
// and its event are written together. Rev, data and commit change in the last batch. A crash
// between two batches leaves a pending row, and the next task repeats the merge to find the
// remaining changes. diff runs even if the copy has the stored rev, because an earlier diff may
// have crashed at this rev.
func (l *landing) diff(ctx context.Context, c *fetch.Copy) (store.Repo, error) {
	if err := l.reveal(); err != nil {
		return store.Repo{}, err
	}
	rows, err := l.win.store.Rows(l.win.row.Ordinal)
	if err != nil {
		return store.Repo{}, hosts.OfStore(err)
	}
	d := &difference{l: l, rows: rows, more: rows.Next()}
	err = d.merge(ctx, c)
	if err == nil {
		err = ctx.Err()
	}
	if cerr := rows.Close(); cerr != nil {
		err = errors.Join(hosts.OfStore(cerr), err)
	}
	if err != nil {
		return store.Repo{}, err
	}
	return d.flush(l.complete)
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
				if err := d.add(ctx, store.Op{Path: row.Path, Replaces: true}); err != nil {
					return err
				}
			}
			if order == 0 {
				return d.compare(ctx, row, l)
			}
			d.more = d.rows.Next()
		}
		if !d.keeps(l.Key) {
			return nil
		}
		return d.add(ctx, store.Op{Path: l.Key, CID: l.CID, Record: l.Record})
	})
	for err == nil && d.more {
		err = d.add(ctx, store.Op{Path: d.rows.Row().Path, Replaces: true})
		d.more = d.rows.Next()
	}
	return err
}

// compare adds the difference of a row and the leaf of the same key, and advances to the next row.
func (d *difference) compare(ctx context.Context, row store.Row, l repo.Leaf) (err error) {
	switch {
	case !d.keeps(l.Key):
		err = d.add(ctx, store.Op{Path: l.Key})
	case row.CID != l.CID:
		err = d.add(ctx, store.Op{Path: l.Key, CID: l.CID, Record: l.Record, Replaces: true})
	case !refilter.InPlace(d.l.win.filter.Filter, row):
		err = d.add(ctx, store.Op{Path: l.Key, Keep: true})
	}
	d.more = d.rows.Next()
	return err
}

// keeps reports whether the filter of the task stores a record, visible or not.
func (d *difference) keeps(path []byte) bool {
	f := d.l.win.filter
	if refilter.KeepsAll(f.Filter) {
		return true
	}
	collection, _, valid := repo.SplitPath(path)
	return valid && f.Wants(collection)
}

// add gathers one change, and writes the gathered changes once they reach a limit.
func (d *difference) add(ctx context.Context, op store.Op) error {
	if op.CID.Defined() && op.Record == nil { // nil means absent; an empty record is legal
		if d.l.win.store.Ephemeral() {
			return nil // it was stored when the fetch began, and has gone with its event
		}
		return store.ErrStale // it was stored when the fetch began, so it was not fetched
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

// flush writes the gathered changes. If complete is not nil, the same batch calls it.
func (d *difference) flush(complete func(*store.Batch, *store.Repo)) (store.Repo, error) {
	row, err := d.l.win.update(func(b *store.Batch, row *store.Repo) error {
		row.Torn = true // the records are no longer those of row.Rev: only a copy completes them
		row.TornRev = max(row.TornRev, d.l.commit.Rev)
		if row.Filter != d.l.win.filter.Selection {
			// Apply selects records by this filter from here on
			row.Filter, row.Sweep = d.l.win.filter.Selection, true
		}
		if len(d.ops) > 0 {
			if err := b.Apply(row, false, d.l.commit.Rev, d.ops); err != nil {
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

// reveal makes a hidden account visible in a separate batch before any diff: readers skip the
// events of an account that is hidden when they read them. After a crash that follows this batch,
// the next task finds the account visible, so its records are listed only once.
func (l *landing) reveal() error {
	if !l.win.row.Status.Hidden() {
		return nil
	}
	row, err := l.win.update(reveal)
	if err == nil && row.Ordinal == 0 {
		return store.ErrStale // wiped: the next attempt makes a first copy
	}
	return err
}
