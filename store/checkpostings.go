package store

import (
	"bytes"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// copied returns the rows of the open chunk. The sequencer's mutex is held.
func (p *postings) copied() rowMap {
	own := *p
	own.key, own.lists = nil, map[string]*postingList{}
	for list, l := range p.lists {
		l := *l
		l.row = slices.Clone(l.row)
		own.lists[list] = &l
	}
	rows := rowMap{}
	_ = own.each(func(key, row []byte) error { return rows.Set(key, row, nil) }) // cannot fail
	return rows
}

// rowMap is a rowSetter that keeps the rows.
type rowMap map[string][]byte

// Set implements rowSetter.
func (m rowMap) Set(key, value []byte, _ *pebble.WriteOptions) error {
	m[string(key)] = bytes.Clone(value)
	return nil
}

// postingChecker makes postings of the log again, and compares, a bucket at a time.
type postingChecker struct {
	*checker
	want   postings // of the log
	bucket uint64   // that is being gathered
	rows   rowMap   // of its chunks
	lost   []idRun  // events whose collection is not known any more: a list may have them or not
}

// checkPostings checks that every event from the tail on is in the list of its kind or collection,
// and in no other: on disk, and in memory for the open chunk.
func checkPostings(c *checker) error {
	p := postingChecker{checker: c, rows: rowMap{}}
	p.want.init(&c.s.opts, c.tail)
	p.bucket = p.want.first >> p.want.bucketBits
	if err := p.outside(); err != nil {
		return err
	}
	cost := c.step.work / max(1, c.want[countEvents]) // with that of entries
	lost := func(r idRun) { p.lost = append(p.lost, r) }
	add := func(kind Kind, collection []byte, id uint64) error {
		p.spent(cost)
		if err := p.pass(id); err != nil {
			return err
		}
		return p.want.add(p.rows, kind, collection, id, 1)
	}
	err := c.s.eachPosting(c.r, c.tail, c.next, lost, add)
	if err == nil {
		err = p.pass(c.next)
	}
	if err == nil {
		err = p.compare()
	}
	if err != nil {
		return err
	}
	p.rows = p.want.copied()
	for key, row := range c.open {
		p.row([]byte(key), row, p.rows[key])
		delete(p.rows, key)
	}
	p.missing()
	return nil
}

// pass compares the buckets that end at or before event next.
func (p *postingChecker) pass(next uint64) error {
	w := &p.want
	for next >= w.end() {
		if err := w.pass(p.rows, w.end()); err != nil {
			return err
		}
		if bucket := w.first >> w.bucketBits; bucket != p.bucket {
			if err := p.compare(); err != nil {
				return err
			}
			p.bucket = bucket
		}
	}
	return nil
}

// compare compares the rows of the bucket.
func (p *postingChecker) compare() error {
	err := p.each(bucketKey(nil, p.bucket), bucketKey(nil, p.bucket+1), func(key, row []byte) error {
		p.row(key, row, p.rows[string(key)])
		delete(p.rows, string(key))
		return nil
	})
	p.missing()
	return err
}

// missing reports the rows that were not compared.
func (p *postingChecker) missing() {
	for _, key := range slices.Sorted(maps.Keys(p.rows)) {
		p.report("postings %q are missing", key)
	}
	clear(p.rows)
}

// row compares one row with the one that the log makes, nil if it makes none.
func (p *postingChecker) row(key, got, want []byte) {
	if bytes.Equal(got, want) {
		return
	}
	_, _, first, err := parsePostingKey(key)
	if err != nil {
		p.report("postings: %v", err)
		return
	}
	has, needs := p.ids(first, got), p.ids(first, want)
	for id := range needs {
		if !has[id] {
			p.report("postings %q lack event %d", key, id)
		}
	}
	for id := range has {
		if id >= p.tail && !needs[id] && !p.isLost(id) {
			p.report("postings %q have event %d, the log has not", key, id)
		}
	}
}

// ids returns the events of a row.
func (p *postingChecker) ids(first uint64, row []byte) map[uint64]bool {
	ids := map[uint64]bool{}
	if row == nil {
		return ids
	}
	in, err := newRunReader(row, first, first+1<<p.want.chunkBits)
	for err == nil {
		var run idRun
		var ok bool
		if run, ok, err = in.next(); !ok {
			break
		}
		for id := run.from; id < run.to; id++ {
			ids[id] = true
		}
	}
	if err != nil {
		p.report("%v", err)
	}
	return ids
}

func (p *postingChecker) isLost(id uint64) bool {
	return slices.ContainsFunc(p.lost, func(r idRun) bool { return r.from <= id && id < r.to })
}

// outside reports rows outside of the log: of buckets before the tail's, and of chunks that have
// not ended.
func (p *postingChecker) outside() error {
	open := p.want.chunkOf(p.next)
	return p.space(spacePosting, func(key, _ []byte) error {
		bucket, _, first, err := parsePostingKey(key)
		if err != nil {
			return err
		}
		wrong := first>>p.want.bucketBits != bucket || p.want.chunkOf(first) != first
		if wrong || bucket < p.bucket || first >= open {
			p.report("postings %q are of no chunk between the tail %d and the next event %d", key,
				p.tail, p.next)
		}
		return nil
	})
}
