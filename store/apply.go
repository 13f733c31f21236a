package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"cistern/filter"
	"cistern/ingest/repo"
)

// Op is one record operation for Batch.Apply.
type Op struct {
	Path   []byte   // MST key
	CID    repo.CID // zero deletes the record
	Record []byte   // DAG-CBOR, hashed to CID by the caller
	// Keep leaves the record as it is, and only shows or shelves it as the repository's filter
	// requires. CID and Record are ignored. If no record is stored under Path, nothing happens.
	Keep bool
	// New states that no record is stored under Path, as the proof of a verified commit shows,
	// which saves a read. If that is wrong, the store is damaged.
	New bool
	// Replaces states that the repository had a record under Path, as the proof of a verified commit
	// or a stored row shows. It decides the action in an ephemeral store, which may not have the
	// row any more.
	Replaces bool
}

// supersededBlock is a block whose last reference is removed by the batch, with an entry or
// without.
type supersededBlock struct {
	entry   int
	ordinal Ordinal
	block   uint32
}

type numbered struct {
	ordinal Ordinal
	block   uint32
}

// Apply writes the difference that one commit (or one part of a resync) makes to r's records, as
// one entry of the log. The stored state decides the action of each op: a write to a path whose
// record is shown is an update, and to any other path a create; a delete of an unknown path and a
// write of the same CID do nothing. In an ephemeral store Op.Replaces decides where no record is
// stored. The filter that r names decides what is kept: a record that it does not want is left out,
// or shelved, and gets a delete event if it was shown. Paths must be unique within a batch. Changes
// of a hidden account make no events: when the account is shown again, all its records are listed
// again, but for an ephemeral store, which does not store these changes. Apply changes the counts
// in r; the caller writes r by PutRepo.
func (b *Batch) Apply(r *Repo, live bool, rev string, ops []Op) error {
	if r.Ordinal == 0 {
		return fmt.Errorf("apply %s: the repository was never imported", r.DID)
	}
	if len(ops) > entryOpsMax {
		return fmt.Errorf("apply %s: %d ops are more than %d", r.DID, len(ops), entryOpsMax)
	}
	if b.touched[r.Ordinal] {
		return fmt.Errorf("apply %s twice in one batch: the second would not see the first", r.DID)
	}
	f, err := b.s.FilterAt(r.Filter)
	if err != nil {
		return fmt.Errorf("apply %s: %w", r.DID, err)
	}
	if b.touched == nil {
		b.touched = map[Ordinal]bool{}
	}
	b.touched[r.Ordinal] = true
	e := entryV1{Kind: entryCommit, DID: appendDID(nil, r.DID), Live: live, Rev: rev,
		Ordinal: r.Ordinal, Ops: make([]entryOp, 0, len(ops))}
	b.changes, b.logged = b.changes[:0], b.logged[:0]
	a := application{b, r, f, &e}
	for i := range ops {
		if err := a.op(&ops[i]); err != nil {
			return fmt.Errorf("apply %s of %s: %w", ops[i].Path, r.DID, err)
		}
	}
	for _, c := range b.changes {
		if err := a.addCollection(c.collection, c.d); err != nil {
			return err
		}
	}
	if len(e.Ops) > 0 && !r.Status.Hidden() {
		b.entries = append(b.entries, entry{entryV1: e, events: b.s.recent.keep(r.DID, &e, b.logged),
			arrivals: a.arrivals()})
	}
	return b.err
}

// application is one call of Apply: it writes the records of r that the filter keeps, and collects
// in e the events that readers see.
type application struct {
	b *Batch
	r *Repo
	f *filter.Filter
	e *entryV1
}

// collectionChange is the number of records that an Apply adds to a collection, and its events of
// the collection.
type collectionChange struct {
	collection []byte
	d          int64
	arrived    Arrivals
}

// change returns the change of a collection, until the next call. The ops of a large Apply are
// mostly in path order.
func (a *application) change(collection []byte) *collectionChange {
	b := a.b
	for i := len(b.changes) - 1; i >= 0; i-- {
		if c := &b.changes[i]; bytes.Equal(c.collection, collection) {
			return c
		}
	}
	b.changes = append(b.changes, collectionChange{collection: collection})
	return &b.changes[len(b.changes)-1]
}

// arrivals returns the arrivals of the entry.
func (a *application) arrivals() []arrival {
	out := make([]arrival, 0, len(a.b.changes))
	for i := range a.b.changes {
		if c := &a.b.changes[i]; c.arrived != (Arrivals{}) {
			out = append(out, a.b.census.arrival(string(c.collection), c.arrived))
		}
	}
	return out
}

// unref removes one reference from a block. A block without references is superseded at the entry
// of this application.
func (a *application) unref(block uint32) error {
	left, err := a.b.unref(a.r, block)
	if err == nil && left == 0 {
		a.b.superseded = append(a.b.superseded,
			supersededBlock{len(a.b.entries), a.r.Ordinal, block})
	}
	return err
}

// unref removes one reference from a block of r, and returns how many are left.
func (b *Batch) unref(r *Repo, block uint32) (left int64, err error) {
	at := numbered{r.Ordinal, block}
	n, known := b.refs[at]
	if !known {
		if n, err = b.s.refs(b.s.db, r.Ordinal, block); err != nil {
			return 0, err
		}
	}
	if b.refs == nil {
		b.refs = map[numbered]int64{}
	}
	n--
	b.refs[at] = n
	key := numberedKey(b.key[:0], spaceRef, r.Ordinal, block)
	switch {
	case n > 1:
		b.set(key, binary.AppendUvarint(nil, uint64(n)))
	case n == 1:
		b.delete(key)
	case n < 0:
		return n, fmt.Errorf("block %d of %s has %d references: %w", block, r.DID, n, ErrCorrupt)
	}
	return n, nil
}

// refs returns how many record rows refer to a block. A block without a ref row has one.
func (s *Store) refs(rd reader, o Ordinal, block uint32) (int64, error) {
	n := int64(1)
	err := get(rd, numberedKey(nil, spaceRef, o, block), func(v []byte) (err error) {
		n, err = parseCountValue(v)
		return err
	})
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	return n, err
}

func parseCountValue(v []byte) (int64, error) {
	n, size := binary.Uvarint(v)
	if size <= 0 || size != len(v) || n == 0 || n > 1<<62 {
		return 0, fmt.Errorf("count %x: %w", v, ErrCorrupt)
	}
	return int64(n), nil
}

func (a *application) addCollection(collection []byte, d int64) error {
	b, r := a.b, a.r
	if d == 0 {
		return nil
	}
	c := collectionOf{r.Ordinal, string(collection)}
	was, ok := b.s.caches.counts.get(c)
	if !ok {
		var err error
		if was, err = b.s.shownIn(b.s.db, c.ordinal, c.collection); err != nil {
			return err
		}
	}
	n := was + d
	if n < 0 {
		return fmt.Errorf("collection %s of ordinal %d would hold %d records: %w",
			collection, r.Ordinal, n, ErrCorrupt)
	}
	b.counts = append(b.counts, collectionCounted{c, n})
	b.census.set(c, was, n)
	switch {
	case n == 0:
		r.Collections--
	case was == 0:
		r.Collections++
	}
	return b.err
}

// look returns the record row under a key, and its place. The row's rev is valid until the next
// call.
func (a *application) look(key []byte) (row recordRow, at place, err error) {
	b := a.b
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

func (a *application) op(op *Op) error {
	b, r := a.b, a.r
	collection, _, valid := repo.SplitPath(op.Path)
	to := b.s.placeOf(a.f, collection, valid)
	if to == absent && !op.Keep && (op.New || !r.Sweep && !r.Torn) {
		return nil // unwanted records are not stored: there is nothing to delete
	}
	if b.s.ephemeral && r.Status.Hidden() {
		to = absent // no event would show it
	}
	wanted := to
	key := recordKey(b.path[:0], r.Ordinal, op.Path)
	b.path = key
	var old recordRow
	from := absent
	if !op.New {
		var err error
		if old, from, err = a.look(key); err != nil {
			return err
		}
	}
	if !op.Keep && !op.CID.Defined() || op.Keep && from == absent {
		to = absent
	}
	told := from // the place that events have told of
	if b.s.ephemeral && op.Replaces && from == absent {
		told = wanted // the row has gone with its event
	}
	same := from != absent && (op.Keep || old.cid == op.CID)
	if from == to && told == to && (same || to == absent) {
		return nil
	}
	block := old.block
	if from != absent && (to == absent || !same) {
		if err := a.unref(old.block); err != nil {
			return err
		}
	}
	switch {
	case to == absent:
		b.delete(key)
	case same: // only the place changes
		a.setRecord(key, to, block, old.cid, string(old.rev))
	default:
		block = r.NextBlock
		r.NextBlock++
		r.Blocks++
		blockKey := numberedKey(b.key[:0], spaceBlock, r.Ordinal, block)
		b.set(blockKey, op.Record)
		a.setRecord(key, to, block, op.CID, a.e.Rev)
		if b.s.ephemeral {
			b.s.growth.wrote(blockKey, op.Record)
			b.s.growth.wrote(key, b.value)
		}
	}
	r.moved(from, to)
	switch {
	case from != shown && to == shown:
		a.change(collection).d++
	case from == shown && to != shown:
		a.change(collection).d--
	}
	a.addEvent(op, collection, told, to, block)
	return nil
}

func (a *application) setRecord(key []byte, at place, block uint32, cid repo.CID, rev string) {
	b := a.b
	b.value = append(recordRow{hidden: at == hidden, shelved: at == shelved, block: block,
		cid: cid}.append(b.value[:0]), rev...)
	b.set(key, b.value)
}

// addEvent adds to the entry the event of a record that moves between places, if readers see it.
func (a *application) addEvent(op *Op, collection []byte, from, to place, block uint32) {
	told := entryOp{Path: op.Path}
	switch {
	case from == shown && to == shown:
		told.Action, told.Block = Update, block
		a.change(collection).arrived.Updated++
	case to == shown:
		told.Action, told.Block = Create, block
		a.change(collection).arrived.Created++
	case from == shown:
		told.Action = Delete
		a.change(collection).arrived.Deleted++
	default:
		return
	}
	a.e.Ops = append(a.e.Ops, told)
	a.b.logged = append(a.b.logged, *op)
}
