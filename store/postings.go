package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// Postings lead from a kind of event, or from a collection, to the ids of its events, so that a
// reader of few collections need not read the whole log.
//
// Ids are divided into chunks. The postings of the chunk that the next id is in are in memory. The
// batch whose events pass the end of a chunk writes its postings, a row for each kind or
// collection: a row for each event would cost more than the event. When the store is opened, the
// postings of the open chunk are gathered from the log again.
//
// The rows of many chunks, a bucket, are in order of collection. So a reader of one collection
// finds all its rows of a bucket side by side, and pruning deletes a bucket as one range.
const (
	// chunkBits makes chunks of 16,384 ids. The network's hundreds of collections then cost some
	// hundreds of rows a chunk, and opening the store reads that many events at most.
	chunkBits = 14
	// bucketBits makes buckets of 1,048,576 ids, whose rows take some 1.5 MB. Rows below the tail
	// stay until their bucket ends.
	bucketBits = 20
)

// A row of postings is version(1), and for each run of consecutive ids one or two numbers
// (uvarints): twice the number of ids between the run before (or the beginning of the chunk) and
// this one, plus one if the run has several ids; and in that case the number of its ids, less two.

// idRun is the ids [from, to).
type idRun struct{ from, to uint64 }

// postingList gathers the ids of one kind or collection in a chunk.
type postingList struct {
	row  []byte // all runs but the last
	end  uint64 // of the runs in row
	last idRun
}

// add adds n ids, from id on, which are above all earlier ids of the list.
func (l *postingList) add(id, n uint64) {
	if id == l.last.to {
		l.last.to += n
		return
	}
	l.close()
	l.last = idRun{id, id + n}
}

// close moves the last run to the row.
func (l *postingList) close() {
	n := l.last.to - l.last.from
	switch gap := l.last.from - l.end; {
	case n == 0:
		return
	case n == 1:
		l.row = binary.AppendUvarint(l.row, gap<<1)
	default:
		l.row = binary.AppendUvarint(binary.AppendUvarint(l.row, gap<<1|1), n-2)
	}
	l.end = l.last.to
	l.last = idRun{l.end, l.end}
}

// rowSetter takes the rows of chunks that have ended: a batch.
type rowSetter interface {
	Set(key, value []byte, o *pebble.WriteOptions) error
}

// postings gathers the lists of the open chunk.
type postings struct {
	chunkBits, bucketBits uint8

	first uint64                  // first id of the open chunk
	lists map[string]*postingList // by kind and collection, as appendList writes them
	list  []byte                  // scratch
	key   []byte                  // scratch
}

func (p *postings) init(o *Options, next uint64) {
	*p = postings{chunkBits: o.chunkBits, bucketBits: o.bucketBits, lists: map[string]*postingList{}}
	p.first = p.chunkOf(next)
}

// chunkOf returns the first id of the chunk that an id is in.
func (p *postings) chunkOf(id uint64) uint64 { return id >> p.chunkBits << p.chunkBits }

// end returns the end of the open chunk.
func (p *postings) end() uint64 { return p.first + 1<<p.chunkBits }

// addEntry adds the events of an entry, and writes the chunks that end before the last of them.
func (p *postings) addEntry(b rowSetter, e *entry) (err error) {
	id := e.id
	if e.listed() {
		for i := 0; i < len(e.collections) && err == nil; i++ {
			c := &e.collections[i]
			err = p.add(b, KindRecord, []byte(c.name), id, uint64(c.count))
			id += uint64(c.count)
		}
		return err
	}
	return e.eachOp(id, func(kind Kind, collection []byte, id uint64) error {
		return p.add(b, kind, collection, id, 1)
	})
}

// eachOp calls fn for the events of an entry that has no listing.
func (e *entryV1) eachOp(id uint64, fn postingFunc) error {
	switch e.Kind {
	case entryAccount:
		return fn(KindAccount, nil, id)
	case entryIdentity:
		return fn(KindIdentity, nil, id)
	case entryRepo:
		return fn(KindRepo, nil, id)
	}
	for i := range e.Ops {
		collection, _, _ := bytes.Cut(e.Ops[i].Path, []byte{'/'})
		if err := fn(KindRecord, collection, id+uint64(i)); err != nil {
			return err
		}
	}
	return nil
}

// add adds n events of a kind and a collection, from id on. All are above earlier events.
func (p *postings) add(b rowSetter, kind Kind, collection []byte, id, n uint64) error {
	p.list = appendList(p.list[:0], kind, collection)
	for n > 0 {
		if err := p.pass(b, id); err != nil {
			return err
		}
		l := p.lists[string(p.list)]
		if l == nil {
			l = &postingList{end: p.first, last: idRun{p.first, p.first}}
			p.lists[string(p.list)] = l
		}
		some := min(n, p.end()-id)
		l.add(id, some)
		id, n = id+some, n-some
	}
	return nil
}

// pass writes the chunks that end at or before event next.
func (p *postings) pass(b rowSetter, next uint64) error {
	for next >= p.end() {
		err := p.each(func(key, row []byte) error { return b.Set(key, row, nil) })
		if err != nil {
			return err
		}
		p.first = p.end()
		clear(p.lists)
	}
	return nil
}

// each calls fn for the rows of the open chunk.
func (p *postings) each(fn func(key, row []byte) error) error {
	var row []byte
	for _, list := range slices.Sorted(maps.Keys(p.lists)) {
		l := p.lists[list]
		l.close()
		row = append(append(row[:0], valueVersion), l.row...)
		p.key = postingKey(p.key[:0], p.first>>p.bucketBits, []byte(list), p.first)
		if err := fn(p.key, row); err != nil {
			return err
		}
	}
	return nil
}

// prune deletes the buckets that end before the tail, which has moved.
func (p *postings) prune(b *pebble.Batch, from, tail uint64) error {
	if from, to := from>>p.bucketBits, tail>>p.bucketBits; from < to {
		return b.DeleteRange(bucketKey(nil, from), bucketKey(nil, to), nil)
	}
	return nil
}

// loadPostings gathers the postings of the open chunk from the log.
func (s *Store) loadPostings() error {
	p := &s.seq.postings
	p.init(&s.opts, s.seq.next)
	add := func(kind Kind, collection []byte, id uint64) error {
		return p.add(nil, kind, collection, id, 1) // nothing is written: all are in one chunk
	}
	return s.eachPosting(s.db, max(p.first, s.Tail()), s.seq.next, nil, add)
}

// postingFunc takes an event that belongs into the list of a kind and collection.
type postingFunc func(kind Kind, collection []byte, id uint64) error

// eachPosting calls fn for the events [from, to) of the log, and lost for events whose listing is
// gone. No reader will see these: their repository was wiped or dropped.
func (s *Store) eachPosting(r reader, from, to uint64, lost func(idRun), fn postingFunc) error {
	return s.eachEntry(r, from, to, func(id uint64, e *entryV1) error {
		inside := func(kind Kind, collection []byte, id uint64) error {
			if id < from || id >= to {
				return nil
			}
			return fn(kind, collection, id)
		}
		if !e.listed() {
			return e.eachOp(id, inside)
		}
		next, err := e.eachListed(r, id, max(id, from), inside)
		if next < id+e.ids() && lost != nil {
			lost(idRun{next, id + e.ids()})
		}
		return err
	})
}

// eachEntry calls fn for the entries that have the events [from, to) of the log.
func (s *Store) eachEntry(r reader, from, to uint64, fn func(id uint64, e *entryV1) error) error {
	it, err := r.NewIter(&pebble.IterOptions{
		LowerBound: []byte{spaceEvent}, UpperBound: spaceEnd(spaceEvent),
	})
	if err != nil {
		return engineError(err)
	}
	for ok := it.SeekLT(eventKey(nil, from+1)) || it.First(); ok && err == nil; ok = it.Next() {
		var e entryV1
		var id uint64
		if id, err = parseEventKey(it.Key()); err != nil || id >= to {
			break
		}
		if err = s.codec.decode(it.Value(), &e); err == nil {
			err = fn(id, &e)
		}
	}
	return errors.Join(err, engineError(it.Error()), engineError(it.Close()))
}

// eachListed calls fn for the events of an entry that has a listing, from id from on or somewhat
// before it, and returns the id behind the last that the listing has.
func (e *entryV1) eachListed(r reader, id, from uint64, fn postingFunc) (next uint64, err error) {
	lower, upper := e.listing()
	rows, err := r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return from, engineError(err)
	}
	next = from
	behind := numberedKey(nil, spaceListing, e.Ordinal, e.First+uint32(from-id)+1)
	for ok := rows.SeekLT(behind); ok && err == nil; ok = rows.Next() {
		var l listingReader
		var n uint32
		if _, n, err = parseNumberedKey(spaceListing, rows.Key()); err != nil {
			break
		}
		next = id + uint64(n-e.First)
		l, err = newListingReader(rows.Value())
		for more := true; err == nil; next++ {
			if more, err = l.next(); err != nil || !more {
				break
			}
			collection, _, _ := bytes.Cut(l.op.path, []byte{'/'})
			err = fn(KindRecord, collection, next)
		}
	}
	return next, errors.Join(err, engineError(rows.Error()), engineError(rows.Close()))
}

// runReader walks the runs of a row of postings.
type runReader struct {
	rest []byte
	end  uint64 // of the run before
	most uint64 // end of the chunk
}

func newRunReader(row []byte, first, end uint64) (runReader, error) {
	if len(row) < 2 || row[0] != valueVersion {
		return runReader{}, fmt.Errorf("postings from event %d: %.2x: %w", first, row, ErrCorrupt)
	}
	return runReader{rest: row[1:], end: first, most: end}, nil
}

// next returns the next run, and false at the end.
func (r *runReader) next() (run idRun, ok bool, err error) {
	if len(r.rest) == 0 {
		return run, false, nil
	}
	gap, size := binary.Uvarint(r.rest)
	if size <= 0 || gap>>1 >= r.most-r.end {
		return run, false, fmt.Errorf("postings behind event %d: %w", r.end, ErrCorrupt)
	}
	r.rest = r.rest[size:]
	run.from = r.end + gap>>1
	run.to = run.from + 1
	if gap&1 != 0 {
		more, size := binary.Uvarint(r.rest)
		if size <= 0 || more >= r.most-run.to {
			return run, false, fmt.Errorf("postings from event %d: %w", run.from, ErrCorrupt)
		}
		r.rest = r.rest[size:]
		run.to += 1 + more
	}
	r.end = run.to
	return run, true, nil
}
