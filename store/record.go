package store

import (
	"bytes"
	"errors"
	"fmt"

	"cistern/ingest/repo"

	"github.com/cockroachdb/pebble/v2"
)

// Row is the index entry of one record.
type Row struct {
	Path []byte // MST key, collection/rkey unless Hidden
	CID  repo.CID
	// the path is not a valid collection/rkey: the record is kept for the root and not shown
	Hidden  bool
	Shelved bool   // the filter of the repository does not want the record: it is kept and not shown
	Rev     []byte // of the commit that wrote it, or of the import that found it
	Block   uint32 // number of the block that holds the record
}

// rowAt returns the row at an iterator over record rows, valid until the iterator moves.
func rowAt(it *pebble.Iterator) (Row, error) {
	value, err := it.ValueAndErr()
	if err != nil {
		return Row{}, engineError(err)
	}
	v, err := parseRecordRow(value)
	if err != nil {
		return Row{}, err
	}
	_, path, err := parseRecordKey(it.Key())
	return Row{Path: path, CID: v.cid, Hidden: v.hidden, Shelved: v.shelved, Rev: v.rev,
		Block: v.block}, err
}

// Rows iterates over the record rows of a repository in MST key order, from one point in time.
type Rows struct {
	it  *pebble.Iterator
	row Row
	err error
}

// Rows returns an iterator before the first row. The caller closes it.
func (s *Store) Rows(o Ordinal) (*Rows, error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: ordinalKey(nil, spaceRecord, o),
		UpperBound: ordinalKey(nil, spaceRecord, o+1)})
	if err != nil {
		return nil, engineError(err)
	}
	return &Rows{it: it}, nil
}

// Next moves to the next row and reports whether there is one.
func (r *Rows) Next() bool {
	if r.err != nil {
		return false
	}
	ok := false
	if !r.it.Valid() {
		ok = r.row.Path == nil && r.it.First()
	} else {
		ok = r.it.Next()
	}
	if !ok {
		return false
	}
	row, err := rowAt(r.it)
	if err != nil {
		r.err = err
		return false
	}
	r.row = row
	return true
}

// Row returns the current row, which is valid until the next call of Next.
func (r *Rows) Row() Row { return r.row }

// Close ends the iteration and returns its error.
func (r *Rows) Close() error { return errors.Join(r.err, engineError(r.it.Close())) }

// Record is a record with its body.
type Record struct {
	Collection string
	Rkey       string
	Rev        string // of the commit that wrote it, or of the import that found it
	CID        repo.CID
	Record     []byte // DAG-CBOR
}

// Record returns one record, or ErrNotFound. The caller checks whether r may be shown.
func (s *Store) Record(r *Repo, collection, rkey string) (Record, error) {
	path := []byte(collection + "/" + rkey)
	var rec Record
	err := s.at(func(rd reader) error {
		return get(rd, recordKey(nil, r.Ordinal, path), func(v []byte) error {
			row, err := parseRecordRow(v)
			if err != nil {
				return err
			}
			rec, err = s.record(rd, r.Ordinal, path, row)
			return err
		})
	})
	return rec, err
}

// RecordCID returns the CID of the record under an MST key of r, shown or not, or zero if there is
// none.
func (s *Store) RecordCID(r *Repo, path []byte) (repo.CID, error) {
	if r.Ordinal == 0 {
		return repo.CID{}, nil
	}
	var cid repo.CID
	err := get(s.db, recordKey(nil, r.Ordinal, path), func(v []byte) error {
		row, err := parseRecordRow(v)
		cid = row.cid
		return err
	})
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	return cid, err
}

// eachRecord calls fn for the record rows of an ordinal in order.
func (s *Store) eachRecord(o Ordinal, fn func(path []byte, row recordRow) error) error {
	return scan(s.db, ordinalKey(nil, spaceRecord, o), ordinalKey(nil, spaceRecord, o+1),
		func(key, value []byte) (bool, error) {
			_, path, err := parseRecordKey(key)
			if err != nil {
				return false, err
			}
			row, err := parseRecordRow(value)
			if err != nil {
				return false, err
			}
			return true, fn(path, row)
		})
}

func (s *Store) record(rd reader, o Ordinal, path []byte, row recordRow) (Record, error) {
	collection, rkey, ok := repo.SplitPath(path)
	if row.place() != shown || !ok {
		return Record{}, ErrNotFound
	}
	rec := Record{Collection: string(collection), Rkey: string(rkey),
		Rev: string(row.rev), CID: row.cid}
	err := get(rd, numberedKey(nil, spaceBlock, o, row.block), func(v []byte) error {
		rec.Record = bytes.Clone(v)
		return nil
	})
	if errors.Is(err, ErrNotFound) {
		return Record{}, fmt.Errorf("record %s of ordinal %d names block %d, which is missing: %w",
			path, o, row.block, ErrCorrupt)
	}
	return rec, err
}

// Listed is a record of a list. It is valid until the function that got it returns.
type Listed struct {
	Rkey   []byte
	Rev    []byte // of the commit that wrote it, or of the import that found it
	CID    repo.CID
	Record []byte // DAG-CBOR
}

// EachRecordOf calls fn for the records of a collection that r shows, by descending rkey, or
// ascending with reverse, until fn returns false. All are of one point in time. cursor is the rkey
// after which the list begins; "" begins at the first. The caller checks whether r may be shown.
func (s *Store) EachRecordOf(
	r *Repo, collection, cursor string, reverse bool, fn func(*Listed) (more bool),
) error {
	if r.Ordinal == 0 {
		return nil
	}
	lower := recordKey(nil, r.Ordinal, []byte(collection+"/"))
	upper := recordKey(nil, r.Ordinal, []byte(collection+"0")) // '0' follows '/'
	if cursor != "" && reverse {
		lower = append(append(lower, cursor...), 0)
	} else if cursor != "" {
		upper = append(append([]byte{}, lower...), cursor...)
	}
	if bytes.Compare(lower, upper) >= 0 {
		return nil
	}
	return s.at(func(rd reader) (err error) {
		blocks, err := newBlockCursor(rd, r.Ordinal)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, engineError(blocks.it.Close())) }()
		it, err := rd.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
		if err != nil {
			return engineError(err)
		}
		start, step := it.Last, it.Prev
		if reverse {
			start, step = it.First, it.Next
		}
		more := start()
		if more { // otherwise a client could make us walk over all shelved records
			more, err = s.shows(rd, r.Ordinal, []byte(collection), it.Value())
		}
		for more && err == nil {
			if more, err = listed(it, blocks, fn); more {
				more = step()
			}
		}
		return errors.Join(err, engineError(it.Close()))
	})
}

// listed calls fn for the record at a row if it is shown.
func listed(
	it *pebble.Iterator, blocks *blockCursor, fn func(*Listed) bool,
) (more bool, err error) {
	r, err := rowAt(it)
	if err != nil {
		return false, err
	}
	_, rkey, ok := repo.SplitPath(r.Path)
	if !ok || r.Hidden || r.Shelved {
		return true, nil
	}
	body, err := blocks.get(r.Block)
	if err != nil {
		return false, fmt.Errorf("record %s: %w", r.Path, err)
	}
	return fn(&Listed{Rkey: rkey, Rev: r.Rev, CID: r.CID, Record: body}), nil
}

// Collections returns the collections of which r shows records, in order. It takes one seek for
// each.
func (s *Store) Collections(r *Repo) (out []string, err error) {
	if r.Ordinal == 0 {
		return nil, nil
	}
	err = s.at(func(rd reader) error {
		return s.eachCollection(rd, r.Ordinal, func(name string) (bool, error) {
			out = append(out, name)
			return true, nil
		})
	})
	return out, err
}

// CollectionCounts returns how many records r shows of each of its first collections, at most
// limit. A hidden account counts as if it were not hidden. It takes two seeks for each.
func (s *Store) CollectionCounts(r *Repo, limit int) (out map[string]int64, err error) {
	out = map[string]int64{}
	err = s.at(func(rd reader) error {
		return s.eachCollection(rd, r.Ordinal, func(name string) (bool, error) {
			n, err := s.shownIn(rd, r.Ordinal, name)
			if n > 0 {
				out[name] = n
			}
			return len(out) < limit, err
		})
	})
	return out, err
}

// eachCollection calls fn for the collections of which an ordinal shows records, in order, until it
// returns false.
func (s *Store) eachCollection(
	rd reader, o Ordinal, fn func(name string) (more bool, err error),
) error {
	it, err := rd.NewIter(&pebble.IterOptions{LowerBound: ordinalKey(nil, spaceRecord, o),
		UpperBound: ordinalKey(nil, spaceRecord, o+1)})
	if err != nil {
		return engineError(err)
	}
	for ok := it.First(); ok && err == nil; {
		_, path, perr := parseRecordKey(it.Key())
		collection, _, valid := repo.SplitPath(path)
		if err = perr; err != nil || !valid {
			ok = it.Next()
			continue
		}
		collection = bytes.Clone(collection)
		var shows bool
		more := true
		if shows, err = s.shows(rd, o, collection, it.Value()); shows {
			more, err = fn(string(collection))
		}
		ok = more && it.SeekGE(recordKey(nil, o, append(collection, '0')))
	}
	return errors.Join(err, engineError(it.Close()))
}

// shows reports whether any record of a collection is shown. value is a row of the collection. If
// that row is shelved, shows reads the count of the collection, as rows that are shown may stand
// anywhere behind it.
func (s *Store) shows(rd reader, o Ordinal, collection, value []byte) (bool, error) {
	row, err := parseRecordRow(value)
	if err != nil || !row.shelved {
		return err == nil, err
	}
	return holds(rd, collectionKey(nil, collection, o))
}
