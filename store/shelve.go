package store

import (
	"errors"

	"cistern/filter"
	"cistern/ingest/repo"
)

// place is how a record is kept.
type place uint8

const (
	absent  place = iota
	hidden        // its path is not a valid collection/rkey: kept for the root, not shown
	shelved       // its collection is not wanted, and the filter stores everything: kept, not shown
	shown
)

var placeNames = [...]string{"absent", "hidden", "shelved", "shown"}

func (p place) String() string { return placeNames[p] }

// placeOf returns the place that a filter gives a record. The parts of its MST key are those of
// repo.SplitPath.
func placeOf(f *filter.Filter, collection []byte, valid bool) place {
	switch {
	case valid && f.Wants(collection):
		return shown
	case !f.WantsAll() && !f.StoresAll():
		return absent
	case !valid:
		return hidden
	}
	return shelved
}

func (r recordRow) place() place {
	switch {
	case r.hidden:
		return hidden
	case r.shelved:
		return shelved
	}
	return shown
}

// moved updates the counts of the row for one record that moves between places.
func (r *Repo) moved(from, to place) {
	for _, step := range [...]struct {
		at place
		d  int64
	}{{from, -1}, {to, 1}} {
		switch step.at {
		case shelved:
			r.Shelved += step.d
		case hidden:
			r.Hidden = uint32(int64(r.Hidden) + step.d)
			r.Records += step.d
		case shown:
			r.Records += step.d
		}
	}
}

// look returns the row under a key, and the place of its record. The row's rev is valid until the
// next call.
func (b *Batch) look(key []byte) (row recordRow, at place, err error) {
	err = get(b.s.db, key, func(v []byte) (err error) {
		if row, err = parseRecordRow(v); err == nil {
			b.rev = append(b.rev[:0], row.rev...)
			row.rev, at = b.rev, row.place()
		}
		return err
	})
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	return row, at, err
}

func (b *Batch) applyOp(r *Repo, f *filter.Filter, e *entryV1, rev string, op *Op) error {
	collection, _, valid := repo.SplitPath(op.Path)
	to := placeOf(f, collection, valid)
	if to == absent && !op.Keep && (op.New || !r.Sweep && !r.Torn) {
		return nil // a record that is not wanted is not stored, so that there is none to delete
	}
	key := recordKey(b.path[:0], r.Ordinal, op.Path)
	b.path = key
	var old recordRow
	from := absent
	if !op.New {
		var err error
		if old, from, err = b.look(key); err != nil {
			return err
		}
	}
	if !op.Keep && !op.CID.Defined() || op.Keep && from == absent {
		to = absent
	}
	same := from != absent && (op.Keep || old.cid == op.CID)
	if from == to && (same || to == absent) {
		return nil
	}
	block := old.block
	if from != absent && (to == absent || !same) {
		if err := b.unref(r, old.block, len(b.entries)); err != nil {
			return err
		}
	}
	switch {
	case to == absent:
		b.delete(key)
	case same: // shown from now on, or no longer shown
		b.setRecord(key, to, block, old.cid, string(old.rev))
	default:
		block = r.NextBlock
		r.NextBlock++
		r.Blocks++
		b.set(numberedKey(b.key[:0], spaceBlock, r.Ordinal, block), op.Record)
		b.setRecord(key, to, block, op.CID, rev)
	}
	r.moved(from, to)
	b.tell(e, op, collection, from, to, block)
	return nil
}

func (b *Batch) setRecord(key []byte, at place, block uint32, cid repo.CID, rev string) {
	b.value = append(recordRow{hidden: at == hidden, shelved: at == shelved, block: block, cid: cid}.append(b.value[:0]), rev...)
	b.set(key, b.value)
}

// tell adds to the entry what readers see of a record that moves between places, and counts its
// collection.
func (b *Batch) tell(e *entryV1, op *Op, collection []byte, from, to place, block uint32) {
	told := entryOp{Path: op.Path}
	switch {
	case from == shown && to == shown:
		told.Action, told.Block = Update, block
	case to == shown:
		b.changed(collection, 1)
		told.Action, told.Block = Create, block
	case from == shown:
		b.changed(collection, -1)
		told.Action = Delete
	default:
		return
	}
	e.Ops = append(e.Ops, told)
	b.told = append(b.told, *op)
}
