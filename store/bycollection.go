package store

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"slices"

	"cistern/filter"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// TimeOrderRepos is the usual number of repositories up to which RecordsByTime merges a
	// collection. Each takes a seek for each page, some 4 to 11 µs (BENCHMARKS.md).
	TimeOrderRepos = 25_000
	// timeOrderYield is the number of repositories after which others may compute.
	timeOrderYield = 64
)

// ErrTooManyRepos is returned when a list by time would merge more than TimeOrderRepos.
var ErrTooManyRepos = errors.New("too many repositories to merge")

// RecordPlace is a place in a list of the records of a collection: behind a record key of a
// repository, or with an empty key before its first one.
type RecordPlace struct {
	Ordinal Ordinal
	Rkey    string
}

// RecordsByRepo calls fn for the records of a collection that readers see, behind a place, in the
// order of first imports and then of record keys, until fn returns false or about rowsMax rows were
// examined. It returns the place to go on from, and whether the list has ended. A record that is
// there from the first page to the last comes exactly once (snapshot.go). Events are valid during
// the call of fn.
func (s *Store) RecordsByRepo(ctx context.Context, collection string, at RecordPlace, rowsMax int,
	fn func(*Event) bool) (next RecordPlace, ended bool, err error) {
	f, err := filter.CompileEvents(filter.EventsConfig{Collections: []string{collection}})
	if err != nil {
		return at, false, err
	}
	s.ords.mu.Lock()
	end := s.ords.next
	s.ords.mu.Unlock()
	from := RecordPosition{Ordinal: at.Ordinal, Path: []byte(collection + "/" + at.Rkey)}
	to, ended, err := s.ReadRecords(ctx, NewPass(s.Head(), end, f), from, rowsMax,
		func(ev *Event, _ RecordPosition) bool { return fn(ev) })
	next = RecordPlace{Ordinal: to.Ordinal}
	if to.passed {
		next.Ordinal++
	} else {
		_, rkey, _ := bytes.Cut(to.Path, []byte{'/'})
		next.Rkey = string(rkey)
	}
	return next, ended, err
}

// TimedPlace is a place in a list of records by time, behind the record of a key and a repository.
// The zero TimedPlace is the beginning.
type TimedPlace struct {
	Rkey    string
	Ordinal Ordinal
}

// TimeOrder is what a list of records by time has.
type TimeOrder struct {
	Collection string
	DIDs       []string   // the accounts whose records are listed; nil: all
	After      TimedPlace // the list begins behind it
	Reverse    bool       // by ascending key
	// Limit is about how many records the caller takes.
	Limit int
	// ReposMax is how many repositories are merged at most. Default TimeOrderRepos.
	ReposMax int
	// Yield is called now and then, so that others may compute. An error ends the list.
	Yield func() error
}

// RecordsByTime calls fn for the records of a collection that readers see, behind a place, by
// descending record key, or ascending with Reverse, and records of one key by ordinal in the same
// direction, until fn returns false. TIDs are in the order of their times. It returns the place to
// go on from, and whether the list has ended; a list may stop before Limit. ErrTooManyRepos means
// that all accounts are too many. A record that is there from the first page to the last comes
// exactly once, since its key does not change (snapshot.go). Events are valid during the call of
// fn.
//
// The keys of a collection are in order within each repository, so that one seek leads to the first
// record of each. An index by time over all repositories would cost every record of an import a
// row that does not append (BENCHMARKS.md).
func (s *Store) RecordsByTime(
	ctx context.Context, o TimeOrder, fn func(*Event) bool,
) (next TimedPlace, ended bool, err error) {
	m := recordMerge{TimeOrder: o, s: s, next: o.After, owners: map[Ordinal]*Repo{}}
	m.most, m.ReposMax = 2*max(o.Limit, 1)+100, cmp.Or(o.ReposMax, TimeOrderRepos)
	err = s.at(func(rd reader) error { return m.page(rd, fn) })
	return m.next, m.ended, errors.Join(err, s.Settled(ctx))
}

// recordMerge merges the records of repositories by key. It first finds the first record behind the
// place in each repository, and keeps those that come first in the list: at most twice most of
// them, so that the memory does not grow with the repositories. They are listed up to the first one
// that was not kept.
type recordMerge struct {
	TimeOrder
	s      *Store
	view   reader
	rows   *pebble.Iterator
	heads  []recordHead // a heap, once all are found
	most   int
	cut    *recordHead // the first one that was not kept
	owners map[Ordinal]*Repo
	next   TimedPlace // behind what was examined
	ended  bool
	found  int
	key    []byte // scratch
}

// recordHead is the first record of a repository that is not passed yet.
type recordHead struct {
	ordinal Ordinal
	rkey    string
}

func (m *recordMerge) Len() int      { return len(m.heads) }
func (m *recordMerge) Swap(i, j int) { m.heads[i], m.heads[j] = m.heads[j], m.heads[i] }
func (m *recordMerge) Push(any)      {} // nothing is added later

func (m *recordMerge) Less(i, j int) bool { return m.compare(m.heads[i], m.heads[j]) < 0 }

// Pop removes the last head.
func (m *recordMerge) Pop() any {
	last := m.heads[len(m.heads)-1]
	m.heads = m.heads[:len(m.heads)-1]
	return last
}

// compare returns the order of two records in the list.
func (m *recordMerge) compare(a, b recordHead) int {
	c := cmp.Or(cmp.Compare(a.rkey, b.rkey), cmp.Compare(a.ordinal, b.ordinal))
	if m.Reverse {
		return c
	}
	return -c
}

func (m *recordMerge) page(rd reader, fn func(*Event) bool) (err error) {
	m.view = rd
	if m.rows, err = rd.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceRecord},
		UpperBound: spaceEnd(spaceRecord)}); err != nil {
		return engineError(err)
	}
	if m.DIDs != nil {
		err = m.findIn()
	} else {
		err = m.findAll()
	}
	if err == nil {
		err = m.list(fn)
	}
	return errors.Join(err, engineError(m.rows.Close()))
}

// findIn finds the first records of the wanted accounts.
func (m *recordMerge) findIn() error {
	for _, did := range m.DIDs {
		row, err := m.s.loadRepo(m.view, did)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if o := row.rowState().visible(); o != 0 {
			m.owners[o] = &row
			if err := m.find(o); err != nil {
				return err
			}
		}
	}
	return nil
}

// findAll finds the first records of all repositories that have some.
func (m *recordMerge) findAll() error {
	all, _, err := totalAt(m.view, m.Collection)
	if err != nil || all.repos == 0 {
		return err
	}
	// Hidden accounts are passed too, and count as well.
	tooMany := fmt.Errorf("%w: %d show records of %s, at most %d are merged",
		ErrTooManyRepos, all.repos, m.Collection, m.ReposMax)
	if all.repos > int64(m.ReposMax) {
		return tooMany
	}
	prefix := collectionKey(nil, []byte(m.Collection), 0)
	prefix = prefix[:len(prefix)-ordinalBytes]
	n := 0
	return scan(m.view, prefix, appendOrdinal(slices.Clone(prefix), OrdinalMax),
		func(key, _ []byte) (bool, error) {
			if n++; n > 2*m.ReposMax {
				return false, tooMany
			}
			_, o, err := parseCollectionKey(key)
			if err == nil {
				err = m.find(o)
			}
			return true, err
		})
}

// find finds the first record of a repository behind the place.
func (m *recordMerge) find(o Ordinal) error {
	if m.found++; m.found%timeOrderYield == 0 && m.Yield != nil {
		if err := m.Yield(); err != nil {
			return err
		}
	}
	// Of equal keys, those of some ordinals were passed.
	passed := m.Reverse == (o <= m.After.Ordinal)
	if o == m.After.Ordinal {
		passed = true
	}
	rkey, err := m.seek(o, m.After.Rkey, passed)
	if err != nil || rkey == nil {
		return err
	}
	h := recordHead{o, string(rkey)}
	if m.cut != nil && m.compare(h, *m.cut) >= 0 {
		return nil
	}
	if m.heads = append(m.heads, h); len(m.heads) < 2*m.most {
		return nil
	}
	slices.SortFunc(m.heads, m.compare)
	m.cut = &recordHead{m.heads[m.most].ordinal, m.heads[m.most].rkey}
	m.heads = m.heads[:m.most]
	return nil
}

// list calls fn for the records of the heads and those that follow them.
func (m *recordMerge) list(fn func(*Event) bool) error {
	heap.Init(m)
	for len(m.heads) > 0 {
		h := &m.heads[0]
		if m.cut != nil && m.compare(*h, *m.cut) >= 0 {
			return nil
		}
		m.next = TimedPlace{h.rkey, h.ordinal}
		owner, err := m.owner(h.ordinal)
		if err != nil {
			return err
		}
		if owner == nil {
			heap.Pop(m)
			continue
		}
		ev, err := m.event(owner, h)
		if err != nil {
			return err
		}
		if !fn(ev) {
			return nil
		}
		rkey, err := m.seek(h.ordinal, h.rkey, true)
		if err != nil {
			return err
		}
		if rkey == nil {
			heap.Pop(m)
			continue
		}
		h.rkey = string(rkey)
		heap.Fix(m, 0)
	}
	m.ended = m.cut == nil
	return nil
}

// owner returns the account of an ordinal, nil if it is hidden.
func (m *recordMerge) owner(o Ordinal) (*Repo, error) {
	if r, ok := m.owners[o]; ok {
		return r, nil
	}
	row, err := m.s.owner(m.view, o)
	if err != nil {
		return nil, err
	}
	m.owners[o] = nil
	if row.Ordinal == o && !row.Status.Hidden() {
		m.owners[o] = &row
	}
	return m.owners[o], nil
}

// seek returns the key of the first record of a repository at a key or behind it; passed means
// behind it. An empty key means the first record of all. The key is nil if the repository has no
// such record, and valid until the next call.
func (m *recordMerge) seek(o Ordinal, rkey string, passed bool) (found []byte, err error) {
	m.key = append(append(recordKey(m.key[:0], o, []byte(m.Collection)), '/'), rkey...)
	first := len(m.key) - len(rkey)
	switch {
	case rkey == "" && !m.Reverse:
		m.key[len(m.key)-1] = '0' // which follows '/'
	case m.Reverse == passed:
		m.key = append(m.key, 0)
	}
	var ok bool
	step := m.rows.Next
	if m.Reverse {
		ok = m.rows.SeekGE(m.key)
	} else {
		ok, step = m.rows.SeekLT(m.key), m.rows.Prev
	}
	m.key[first-1] = '/'
	for ; ok; ok = step() {
		key := m.rows.Key()
		if !bytes.HasPrefix(key, m.key[:first]) {
			return nil, nil
		}
		row, err := m.row()
		if err != nil {
			return nil, err
		}
		if row.place() == shown { // others are there during a sweep only
			return key[first:], nil
		}
	}
	return nil, engineError(m.rows.Error())
}

// row returns the row that the iterator is at.
func (m *recordMerge) row() (recordRow, error) {
	value, err := m.rows.ValueAndErr()
	if err != nil {
		return recordRow{}, engineError(err)
	}
	return parseRecordRow(value)
}

// event reads the record of a head.
func (m *recordMerge) event(of *Repo, h *recordHead) (*Event, error) {
	path := append([]byte(m.Collection+"/"), h.rkey...)
	m.key = recordKey(m.key[:0], h.ordinal, path)
	if !m.rows.SeekGE(m.key) || !bytes.Equal(m.rows.Key(), m.key) {
		return nil, errors.Join(engineError(m.rows.Error()),
			fmt.Errorf("record %s of %s has no row: %w", path, of.DID, ErrCorrupt))
	}
	row, err := m.row()
	if err != nil {
		return nil, err
	}
	ev := &Event{Kind: KindRecord, DID: of.DID, Rev: string(row.rev), Action: Create,
		Collection: path[:len(m.Collection)], Rkey: path[len(m.Collection)+1:], CID: row.cid}
	err = get(m.view, numberedKey(nil, spaceBlock, h.ordinal, row.block), func(v []byte) error {
		ev.Record = bytes.Clone(v)
		return nil
	})
	if errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("record %s of %s names block %d, which is missing: %w",
			path, of.DID, row.block, ErrCorrupt)
	}
	return ev, err
}
