package store

import (
	"bytes"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"cistern/filter"

	"github.com/cockroachdb/pebble/v2"
)

// TimeOrderRepos is the number of repositories up to which RecordsByTime merges a collection. Each
// takes the reading of its row and a seek, some 20 µs of CPU for a page.
const TimeOrderRepos = 1000

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

// TimedPlace is a place in a list of records by time, behind the record of a key and a DID. The zero
// TimedPlace is the beginning.
type TimedPlace struct {
	Rkey string
	DID  string
}

// RecordsByTime calls fn for the records of a collection that readers see, behind a place, by
// descending record key, or ascending with reverse, and records of one key by DID in the same
// direction, until fn returns false. TIDs are in the order of their times. The records are of some
// accounts, or of all: then ErrTooManyRepos means that there are too many. Events are valid during
// the call of fn.
//
// The keys of a collection are in order within each repository, so that one seek leads to the first
// record of each. An index by time over all repositories would cost every record of an import a
// row that does not append (BENCHMARKS.md).
func (s *Store) RecordsByTime(ctx context.Context, collection string, dids []string, after TimedPlace,
	reverse bool, fn func(*Event) bool) error {
	m := recordMerge{collection: collection, after: after, reverse: reverse}
	return errors.Join(s.at(func(rd reader) error {
		repos, err := s.reposToMerge(rd, collection, dids)
		if err != nil {
			return err
		}
		if m.rows, err = rd.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceRecord},
			UpperBound: spaceEnd(spaceRecord)}); err != nil {
			return engineError(err)
		}
		err = m.run(ctx, rd, repos, fn)
		return errors.Join(err, engineError(m.rows.Close()))
	}), s.settled(ctx))
}

// reposToMerge returns the repositories that show records of a collection, or those of some accounts
// that may.
func (s *Store) reposToMerge(rd reader, collection string, dids []string) (repos []Repo, err error) {
	for _, did := range dids {
		row, err := s.loadRepo(rd, did)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		if row.rowState().visible() != 0 {
			repos = append(repos, row)
		}
	}
	if dids != nil {
		return repos, nil
	}
	all, _, err := totalAt(rd, collection)
	if err != nil {
		return nil, err
	}
	if all.repos == 0 {
		return nil, nil
	}
	// Hidden accounts are passed too, and count as well.
	tooMany := fmt.Errorf("%w: %d show records of %s, at most %d are merged", ErrTooManyRepos, all.repos,
		collection, TimeOrderRepos)
	if all.repos > TimeOrderRepos {
		return nil, tooMany
	}
	prefix := collectionKey(nil, []byte(collection), 0)
	prefix = prefix[:len(prefix)-ordinalBytes]
	n := 0
	err = scan(rd, prefix, appendOrdinal(slices.Clone(prefix), OrdinalMax), func(key, _ []byte) (bool, error) {
		if n++; n > 2*TimeOrderRepos {
			return false, tooMany
		}
		_, o, err := parseCollectionKey(key)
		if err != nil {
			return false, err
		}
		row, err := s.owner(rd, o)
		if err == nil && row.Ordinal == o && !row.Status.Hidden() {
			repos = append(repos, row)
		}
		return int64(len(repos)) < all.repos, err
	})
	return repos, err
}

// recordMerge merges the records of repositories by key.
type recordMerge struct {
	collection string
	after      TimedPlace
	reverse    bool
	rows       *pebble.Iterator
	heads      []recordHead // a heap
	key        []byte       // scratch
}

// recordHead is the first record of a repository that is not passed yet.
type recordHead struct {
	repo *Repo
	rkey string
	row  recordRow
}

func (m *recordMerge) Len() int      { return len(m.heads) }
func (m *recordMerge) Swap(i, j int) { m.heads[i], m.heads[j] = m.heads[j], m.heads[i] }
func (m *recordMerge) Push(any)      {} // nothing is added later

func (m *recordMerge) Less(i, j int) bool {
	a, b := &m.heads[i], &m.heads[j]
	c := strings.Compare(a.rkey, b.rkey)
	if c == 0 {
		c = strings.Compare(a.repo.DID, b.repo.DID)
	}
	if m.reverse {
		return c < 0
	}
	return c > 0
}

// Pop removes the last head.
func (m *recordMerge) Pop() any {
	last := m.heads[len(m.heads)-1]
	m.heads = m.heads[:len(m.heads)-1]
	return last
}

func (m *recordMerge) run(ctx context.Context, rd reader, repos []Repo, fn func(*Event) bool) error {
	for i := range repos {
		h := recordHead{repo: &repos[i]}
		// Of equal keys, those of some DIDs were passed.
		passed := m.reverse == (h.repo.DID <= m.after.DID)
		if h.repo.DID == m.after.DID {
			passed = true
		}
		ok, err := m.advance(ctx, &h, m.after.Rkey, passed)
		if err != nil {
			return err
		}
		if ok {
			m.heads = append(m.heads, h)
		}
	}
	heap.Init(m)
	for len(m.heads) > 0 {
		h := &m.heads[0]
		ev, err := m.event(rd, h)
		if err != nil {
			return err
		}
		if !fn(ev) {
			return nil
		}
		ok, err := m.advance(ctx, h, h.rkey, true)
		if err != nil {
			return err
		}
		if ok {
			heap.Fix(m, 0)
		} else {
			heap.Pop(m)
		}
	}
	return nil
}

// advance moves a head to the first record at a key or behind it; passed means behind it. An empty
// key means the first record of all.
func (m *recordMerge) advance(ctx context.Context, h *recordHead, rkey string, passed bool) (ok bool, err error) {
	o := h.repo.Ordinal
	m.key = recordKey(m.key[:0], o, append([]byte(m.collection+"/"), rkey...))
	first := len(m.key) - len(rkey)
	switch {
	case rkey == "" && !m.reverse:
		m.key[len(m.key)-1] = '0' // which follows '/'
	case m.reverse == passed:
		m.key = append(m.key, 0)
	}
	step := m.rows.Next
	if m.reverse {
		ok = m.rows.SeekGE(m.key)
	} else {
		ok, step = m.rows.SeekLT(m.key), m.rows.Prev
	}
	if rkey == "" && !m.reverse {
		m.key[first-1] = '/'
	}
	for ; ok; ok = step() {
		key := m.rows.Key()
		if !bytes.HasPrefix(key, m.key[:first]) {
			return false, nil
		}
		value, err := m.rows.ValueAndErr()
		if err != nil {
			return false, engineError(err)
		}
		row, err := parseRecordRow(value)
		if err != nil {
			return false, err
		}
		if row.place() == shown { // others are there during a sweep only
			h.rkey, h.row = string(key[first:]), row
			h.row.rev = bytes.Clone(row.rev)
			return true, nil
		}
		if err := ctx.Err(); err != nil {
			return false, err
		}
	}
	return false, engineError(m.rows.Error())
}

// event reads the record of a head.
func (m *recordMerge) event(rd reader, h *recordHead) (*Event, error) {
	ev := &Event{Kind: KindRecord, DID: h.repo.DID, Rev: string(h.row.rev), Action: Create,
		Collection: []byte(m.collection), Rkey: []byte(h.rkey), CID: h.row.cid}
	err := get(rd, numberedKey(nil, spaceBlock, h.repo.Ordinal, h.row.block), func(v []byte) error {
		ev.Record = bytes.Clone(v)
		return nil
	})
	if errors.Is(err, ErrNotFound) {
		err = fmt.Errorf("record %s/%s of %s names block %d, which is missing: %w", m.collection, h.rkey,
			h.repo.DID, h.row.block, ErrCorrupt)
	}
	return ev, err
}
