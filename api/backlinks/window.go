package backlinks

import (
	"errors"
	"maps"
	"slices"

	"cistern/api/wire"
	"cistern/store/linkindex"
)

// otherCount is how often another subject is linked to by the linking records.
type otherCount struct {
	Subject  string `json:"subject"`
	Total    int64  `json:"total"`
	Distinct int64  `json:"distinct"`
}

// otherPage is a page of other subjects.
type otherPage struct {
	Counts []otherCount `json:"counts_by_other_subject"`
	Cursor string       `json:"cursor,omitempty"`
}

// getManyToManyCounts answers blue.microcosm.links.getManyToManyCounts, in the order of the other
// subjects. It counts the linking records of a window, which has all of them unless there are very
// many. The pages of a window are followed by those of the next; a subject that both have comes
// again, with what the second counted. The cursor has where the window begins, where it ends and
// where the next begins (0: there is no other), and the last subject of the page.
func (b *Backlinks) getManyToManyCounts(q wire.Query) (any, error) {
	m, err := manyOf(q, "did")
	if err != nil {
		return nil, err
	}
	at, behind, err := numbersOf(q, 3)
	if err != nil {
		return nil, err
	}
	w := window{reader: b.newReader(m), start: at[0], end: at[1], next: at[2], by: map[string]*tally{}}
	if err := w.count(b.index); err != nil {
		return nil, err
	}
	return w.page(behind), nil
}

// window counts the linking records between two places of the index, the oldest first: what arrives
// later comes behind all windows.
type window struct {
	*reader
	start, end uint64 // end is 0 until the limits have ended the window
	next       uint64 // where the next window begins; 0 at the end
	by         map[string]*tally
	memory     int
	last       uint64 // the last record that was counted
	err        error  // of the store
}

// tally is what was counted of one other subject.
type tally struct {
	records int64
	dids    map[string]struct{}
}

// count counts the records of the window, and sets its end if it has none yet.
func (w *window) count(index *linkindex.Index) error {
	next := linkindex.Cursor(w.start)
	for range w.bounds.rounds {
		var err error
		next, err = index.Each(w.many.target, w.many.source,
			linkindex.Query{DIDs: w.many.dids, After: next,
				Limit: w.bounds.records, Reverse: true}, w.add)
		if w.err != nil || err != nil {
			return errors.Join(w.err, indexError(err))
		}
		if next == 0 || w.ends() || w.end != 0 && uint64(next) >= w.end {
			break
		}
	}
	if w.end == 0 {
		w.end, w.next = max(w.last, uint64(next)), uint64(next)
	}
	return nil
}

// ends reports whether the limits end the window. One that has an end already is within them,
// unless records became larger since, or the cursor is made up.
func (w *window) ends() bool {
	slack := 1
	if w.end != 0 {
		slack = 2
	}
	return w.bytes >= slack*w.bounds.bytes || w.memory >= slack*w.bounds.memory
}

// add counts a record, and reports whether the window goes on.
func (w *window) add(rec linkindex.Record, at linkindex.Cursor) bool {
	if w.end != 0 && uint64(at) > w.end {
		return false
	}
	others, err := w.subjects(rec)
	if err != nil {
		w.err = err
		return false
	}
	for _, other := range others {
		t := w.by[other]
		if t == nil {
			t = &tally{dids: map[string]struct{}{}}
			w.by[other] = t
			w.memory += len(other) + subjectBytes
		}
		t.records++
		if _, ok := t.dids[rec.DID]; !ok {
			t.dids[rec.DID] = struct{}{}
			w.memory += accountBytes
		}
	}
	w.last = uint64(at)
	return !w.ends()
}

// page returns the page behind a subject.
func (w *window) page(behind string) otherPage {
	subjects := slices.Sorted(maps.Keys(w.by))
	i, found := slices.BinarySearch(subjects, behind)
	if found {
		i++
	}
	page := otherPage{Counts: []otherCount{}}
	to := min(len(subjects), i+w.many.limit)
	for _, subject := range subjects[i:to] {
		t := w.by[subject]
		page.Counts = append(page.Counts, otherCount{subject, t.records, int64(len(t.dids))})
	}
	switch {
	case to < len(subjects):
		page.Cursor = cursorOf(subjects[to-1], w.start, w.end, w.next)
	case w.next != 0:
		page.Cursor = cursorOf("", w.next, 0, 0)
	}
	return page
}
