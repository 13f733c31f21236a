package store

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"

	"cistern/filter"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// sparseRows bounds the rows of postings that one page of a sparse reading looks at: some
	// milliseconds, after which the page may end without an event.
	sparseRows = 10_000
	// sparseNear is the distance in ids up to which the next entry is found by stepping over the
	// entries in between, which is cheaper than a seek.
	sparseNear = 16
)

// ReadLogSparse is ReadLog of the events that f wants by their kind and collection; whether f wants
// them otherwise is left to the caller. Postings lead to these events, so that the cost is in
// proportion to them and not to the log. It passes about maxEvents of them, or fewer if a page has
// looked at many postings; next may be far behind the last event passed.
func (s *Store) ReadLogSparse(ctx context.Context, f *filter.Events, cursor uint64, maxEvents int,
	fn func(*Event) error,
) (next uint64, err error) {
	ranges := postingRanges(f)
	head := s.Head()
	// The lists in memory are taken before the view: it has the rows of all earlier chunks.
	open, first := s.openLists(ranges)
	return s.readFrom(cursor, head, func(v view, cursor, head uint64) (uint64, error) {
		r := sparseReader{logReader: logReader{s: s, view: v, head: head, next: cursor, fn: fn},
			ranges: ranges, most: max(maxEvents, 0)}
		err := r.read(ctx, min(first, head+1))
		if err == nil && r.next >= first {
			err = r.readOpen(ctx, open, first)
		}
		return r.next, err
	})
}

// postingRanges returns the lists that a filter wants, in ascending order.
func postingRanges(f *filter.Events) (all []filter.Range) {
	for kind := KindRecord; kind <= KindRepo; kind++ {
		if !f.Kind(uint8(kind)) {
			continue
		}
		wanted := f.Ranges()
		if kind != KindRecord || wanted == nil {
			whole := filter.Range{Lower: []byte{byte(kind)}, Upper: []byte{byte(kind) + 1}}
			all = append(all, whole)
			continue
		}
		for _, w := range wanted {
			w.Lower = append([]byte{byte(kind)}, w.Lower...)
			w.Upper = append([]byte{byte(kind)}, w.Upper...)
			all = append(all, w)
		}
	}
	return all
}

// openLists returns the rows of the open chunk, as if it ended now, of the lists in some ranges,
// and the first id of the chunk. All earlier chunks are written.
func (s *Store) openLists(ranges []filter.Range) (rows [][]byte, first uint64) {
	s.seq.mu.Lock()
	defer s.seq.mu.Unlock()
	p := &s.seq.postings
	for list, l := range p.lists {
		i := sort.Search(len(ranges), func(i int) bool { return string(ranges[i].Upper) > list })
		if i == len(ranges) || string(ranges[i].Lower) > list {
			continue
		}
		closed := *l
		closed.row = append([]byte{valueVersion}, l.row...)
		closed.close()
		rows = append(rows, closed.row)
	}
	return rows, p.first
}

// sparseReader expands the entries of the log that postings lead to.
type sparseReader struct {
	logReader
	ranges []filter.Range // of lists
	most   int            // events still to pass

	lists   *pebble.Iterator // postings
	entries *pebble.Iterator
	rows    int // rows of postings looked at
	runs    []idRun
	key     []byte
}

// readOpen passes events of the open chunk, which begins at event first, up to the head.
func (r *sparseReader) readOpen(ctx context.Context, rows [][]byte, first uint64) (err error) {
	if r.next > r.head || r.most == 0 || r.stopped {
		return nil
	}
	if r.entries, err = r.iterator(spaceEvent); err != nil {
		return err
	}
	r.runs, r.end = r.runs[:0], 0
	to := r.head + 1
	for _, row := range rows {
		if to, err = r.loadRow(row, first, to); err != nil {
			return errors.Join(err, engineError(r.entries.Close()))
		}
	}
	r.sort()
	return errors.Join(r.pass(ctx, to), engineError(r.entries.Close()))
}

// read passes events before event to, whose postings are on disk.
func (r *sparseReader) read(ctx context.Context, to uint64) (err error) {
	if r.lists, err = r.iterator(spacePosting); err != nil {
		return err
	}
	if r.entries, err = r.iterator(spaceEvent); err != nil {
		return errors.Join(err, engineError(r.lists.Close()))
	}
	p := &r.s.seq.postings
	width := uint64(1) << p.chunkBits // of the ids whose postings are looked at; they may be few
	for err == nil && r.next < to && r.most > 0 && r.rows < sparseRows && !r.stopped {
		if err = ctx.Err(); err != nil {
			break
		}
		bucket := r.next >> p.bucketBits
		end := min(to, p.chunkOf(r.next)+width, (bucket+1)<<p.bucketBits)
		if end, err = r.load(bucket, end); err == nil {
			err = r.pass(ctx, end)
		}
		if 4*len(r.runs) < r.most {
			width = min(4*width, 1<<p.bucketBits)
		}
	}
	return errors.Join(err, engineError(r.lists.Close()), engineError(r.entries.Close()))
}

func (r *sparseReader) iterator(space byte) (*pebble.Iterator, error) {
	it, err := r.view.NewIter(&pebble.IterOptions{
		LowerBound: []byte{space}, UpperBound: spaceEnd(space),
	})
	return it, engineError(err)
}

// load gathers the runs of wanted events from next on and before event to, which is in the bucket
// or its end. If the events are more than the page may have, it returns a lower end.
func (r *sparseReader) load(bucket, to uint64) (end uint64, err error) {
	r.runs = r.runs[:0]
	for _, w := range r.ranges {
		if to, err = r.loadRange(bucket, w, to); err != nil {
			return to, err
		}
	}
	r.sort()
	return to, nil
}

func (r *sparseReader) sort() {
	slices.SortFunc(r.runs, func(a, b idRun) int { return cmp.Compare(a.from, b.from) })
}

// loadRange gathers the runs of the lists of a range.
func (r *sparseReader) loadRange(bucket uint64, w filter.Range, to uint64) (end uint64, err error) {
	first := r.s.seq.postings.chunkOf(r.next)
	r.rows++ // a seek
	r.key = append(bucketKey(r.key[:0], bucket), w.Lower...)
	if w.Lower[len(w.Lower)-1] == 0 { // a whole list
		r.key = postingKey(r.key[:0], bucket, w.Lower, first)
	}
	upper := append(bucketKey(nil, bucket), w.Upper...)
	for ok := r.lists.SeekGE(r.key); ok && bytes.Compare(r.lists.Key(), upper) < 0; {
		r.rows++
		_, list, at, err := parsePostingKey(r.lists.Key())
		if err != nil {
			return to, err
		}
		switch {
		case at >= to: // the next list
			r.key = append(append(bucketKey(r.key[:0], bucket), list[:len(list)-1]...), 1)
			ok = r.lists.SeekGE(r.key)
		case at < first:
			r.key = postingKey(r.key[:0], bucket, list, first)
			ok = r.lists.SeekGE(r.key)
		default:
			if to, err = r.loadRow(r.lists.Value(), at, to); err != nil {
				return to, err
			}
			ok = r.lists.Next()
		}
	}
	return to, engineError(r.lists.Error())
}

// loadRow gathers the runs of a row, whose chunk begins at event first.
func (r *sparseReader) loadRow(row []byte, first, to uint64) (end uint64, err error) {
	in, err := newRunReader(row, first, first+1<<r.s.seq.postings.chunkBits)
	left := r.most
	for err == nil {
		run, ok, nerr := in.next()
		if nerr != nil || !ok || run.from >= to {
			return to, nerr
		}
		if run.to <= r.next {
			continue
		}
		run.from = max(run.from, r.next)
		run.to = min(run.to, to)
		r.runs = append(r.runs, run)
		if left -= int(min(run.to-run.from, uint64(left))); left == 0 {
			return run.to, nil // this row alone fills the page
		}
	}
	return to, err
}

// pass passes the events of the runs that are before event end, and continues from there.
func (r *sparseReader) pass(ctx context.Context, end uint64) error {
	for _, run := range r.runs {
		if run.from >= end || r.most == 0 {
			break
		}
		if run.to <= r.next {
			continue // of an entry that is not shown
		}
		r.next = max(r.next, run.from)
		for run.to = min(run.to, end); r.next < run.to && r.most > 0; {
			if err := ctx.Err(); err != nil {
				return err
			}
			r.left = int(min(run.to-r.next, uint64(r.most)))
			was := r.left
			if err := r.entryAt(); err != nil || r.stopped {
				return err
			}
			r.most -= was - r.left
		}
	}
	if r.most > 0 {
		r.next = max(r.next, end)
	}
	return nil
}

// entryAt passes the events of the entry that holds next, as many as are left.
func (r *sparseReader) entryAt() error {
	it, at := r.entries, r.next
	for ok := r.end > at; ; ok = false { // the entry at the iterator may be a long one
		sought := false
		switch {
		case ok:
		case r.end > 0 && at-r.end < sparseNear:
			ok = it.Next()
		default:
			ok, sought = it.SeekLT(eventKey(r.key[:0], at+1)), true
		}
		if ok {
			if err := r.entry(it.Key(), it.Value()); err != nil || r.end > at {
				return err
			}
		}
		if !ok || sought {
			err := fmt.Errorf("event %d is missing: %w", at, ErrCorrupt)
			return errors.Join(err, engineError(it.Error()))
		}
	}
}
