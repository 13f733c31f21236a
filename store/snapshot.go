package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"sort"

	"cistern/filter"
	"cistern/ingest/repo"

	"github.com/cockroachdb/pebble/v2"
)

// A pass reads every current record that a filter wants, a page at a time. Each page has a view of
// its own, so that a pass may take hours without keeping the engine from freeing anything. The
// pages see the store at different times, all of them after the pass began at event Head. With the
// log after Head the pass is nevertheless exact:
//
//  1. The position of a page is a key of the pass's order, and only rises, also when the pass goes
//     on after a restart. No key is examined twice.
//  2. A record has the same key during the pass unless its repository gets another ordinal: then
//     it was wiped or dropped, and imported. The import has an event for each record.
//  3. Every change of what readers see has an event: of the record, or of its account (it is
//     hidden, wiped, or shown again with all its records listed). An account event that hides the
//     account makes a reader drop what it holds. Head was durable and its changes visible when the
//     pass began, so that the event of a change that any page misses is above Head.
//  4. A page returns when the state that it saw is durable. A crash cannot take back what the
//     reader was given, nor an event that would have told of it.
//
// So a record without an event above Head is in every view as it was at Head, under one key, and is
// passed exactly once. Of any other record the reader may get what some view saw, or nothing, and
// then its events above Head, the last of which is its current state.
//
// Ordinals may be assigned out of the order of imports, as groups are flipped in any order. That
// does not matter: a repository that becomes visible behind the position, or in front of it, has
// its import above Head. Repositories from ordinal End on were not yet visible at Head, and are
// left to the log, so that a pass ends although imports go on.

// PassOrder is the order of the keys of a pass.
type PassOrder uint8

const (
	// ByOrdinal goes through all repositories, and through each in MST order.
	ByOrdinal PassOrder = 1 + iota
	// ByCollection goes through the repositories of one collection after the other, as the keyspace
	// of collections has them, so that the cost is in proportion to the wanted collections.
	ByCollection
	// ByDID goes through the wanted accounts.
	ByDID
)

// Pass is a pass over the records that a filter wants. It is immutable.
type Pass struct {
	Head  uint64    // the log after it has what the pass misses
	End   Ordinal   // repositories from it on became visible after Head
	Order PassOrder // which follows from the filter
	Sum   uint32    // of what the filter chooses: a position is of use to an equal filter only

	filter *filter.Events
	dids   []string
	ranges []filter.Range
}

// NewPass returns the pass of a filter that begins, or began, at an event.
func NewPass(head uint64, end Ordinal, f *filter.Events) *Pass {
	p := &Pass{Head: head, End: end, Order: ByOrdinal, filter: f, dids: f.DIDs(), ranges: f.Ranges()}
	switch {
	case p.dids != nil:
		p.Order = ByDID
	case p.ranges != nil:
		p.Order = ByCollection
	}
	for _, did := range p.dids {
		p.Sum = crc32.Update(p.Sum, crc32.IEEETable, append([]byte(did), 0))
	}
	for _, r := range p.ranges {
		p.Sum = crc32.Update(p.Sum, crc32.IEEETable, r.Lower)
	}
	return p
}

// RecordPosition is a place between two keys of a pass: behind a record, or, with an empty Path,
// before the first one of a repository. DID counts in a pass by DID, and Ordinal in all others. The
// zero RecordPosition is the beginning.
type RecordPosition struct {
	DID     string
	Ordinal Ordinal
	Path    []byte
	passed  bool // behind the whole repository, or in a pass by collection behind its collection
}

// BeginSnapshot returns a pass of a filter that begins at the head of the log.
func (s *Store) BeginSnapshot(f *filter.Events) *Pass {
	head := s.anchor()
	s.ords.mu.Lock()
	defer s.ords.mu.Unlock()
	return NewPass(head, s.ords.next, f) // what was visible at head had its ordinal before
}

// ReadRecords calls fn for the records of a pass behind a position, in order, as events that create
// them (without an id, a time, or Live), each with the position behind it. The page ends when fn
// returns false, or about rowsMax rows were examined. It returns the position to go on from, and
// whether the pass has ended. Records of hidden accounts are left out, and records that the filter
// of their repository does not want. ErrOutdatedCursor means that neither the log nor, with
// Options.Archive, the archive has all events after the pass's head any more. Events and paths are
// valid during the call of fn.
func (s *Store) ReadRecords(ctx context.Context, p *Pass, at RecordPosition, rowsMax int,
	fn func(*Event, RecordPosition) bool,
) (next RecordPosition, ended bool, err error) {
	r := recordReader{s: s, pass: p, at: at, left: max(rowsMax, 2), fn: fn} // 1 for the repository
	r.at.Path = bytes.Clone(at.Path)
	if err := s.at(func(rd reader) error { return r.page(ctx, rd) }); err != nil {
		return at, false, err
	}
	if err := s.Settled(ctx); err != nil {
		return at, false, err
	}
	return r.at, r.ended, nil
}

// recordReader reads one page of a pass.
type recordReader struct {
	s    *Store
	pass *Pass
	view reader
	at   RecordPosition // what was passed
	left int            // rows still to examine
	fn   func(*Event, RecordPosition) bool

	places *pebble.Iterator // owners of ordinals, or collections; nil by DID
	rows   *pebble.Iterator // records
	ev     Event            // what fn gets
	full   bool             // fn returned false
	ended  bool
	key    []byte
}

// stretch is a range of record rows of one repository.
type stretch struct {
	did        string
	ordinal    Ordinal
	collection []byte // that it is restricted to; nil: all
}

func (r *recordReader) page(ctx context.Context, rd reader) error {
	r.view = rd
	err := r.s.reachable(r.pass)
	if err == nil {
		err = r.open()
	}
	for err == nil && !r.full && !r.ended && r.left > 0 {
		if err = ctx.Err(); err == nil {
			err = r.advance()
		}
	}
	for _, it := range []*pebble.Iterator{r.places, r.rows} {
		if it != nil {
			err = errors.Join(err, engineError(it.Close()))
		}
	}
	return err
}

// reachable returns an error if the log and the archive do not have all events after the head of a
// pass. Pruning moves the tail before it deletes. A reader that is behind it now learns of it now
// instead of at the end of the pass.
func (s *Store) reachable(p *Pass) error {
	switch tail, head := s.Oldest(), s.Head(); {
	case p.Head > head:
		return fmt.Errorf("%w: the snapshot began at %d, the head is %d", ErrFutureCursor, p.Head, head)
	case p.Head+1 < tail:
		return fmt.Errorf("%w: the snapshot began at %d, the oldest is %d",
			ErrOutdatedCursor, p.Head, tail)
	}
	return nil
}

func (r *recordReader) open() (err error) {
	if r.rows, err = r.iterator(spaceRecord); err != nil {
		return err
	}
	switch r.pass.Order {
	case ByOrdinal:
		r.places, err = r.iterator(spaceOwner)
	case ByCollection:
		r.places, err = r.iterator(spaceCollection)
	}
	return err
}

func (r *recordReader) iterator(space byte) (*pebble.Iterator, error) {
	it, err := r.view.NewIter(&pebble.IterOptions{LowerBound: []byte{space},
		UpperBound: spaceEnd(space)})
	return it, engineError(err)
}

// advance reads the next stretch, or the rest of the one at the position.
func (r *recordReader) advance() error {
	r.left--
	st, ok, err := r.next()
	if err != nil || !ok {
		r.ended = err == nil
		return err
	}
	row, err := r.s.loadRepo(r.view, st.did)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	begun := r.at.Ordinal == st.ordinal
	if r.pass.Order == ByDID {
		st.ordinal, begun = row.Ordinal, r.at.DID == st.did
	}
	if r.at.passed || !begun || !bytes.HasPrefix(r.at.Path, st.collection) {
		r.at.Path = append(r.at.Path[:0], st.collection...)
	}
	r.at.DID, r.at.Ordinal = st.did, st.ordinal
	r.at.passed = row.Ordinal == 0 || row.Ordinal != st.ordinal || row.Ordinal >= r.pass.End ||
		row.Status.Hidden()
	if r.at.passed {
		return nil
	}
	return r.read(st)
}

// next returns the stretch at the position, or the one behind it if the position has passed it. ok
// is false at the end of the pass.
func (r *recordReader) next() (st stretch, ok bool, err error) {
	switch r.pass.Order {
	case ByDID:
		return r.nextDID()
	case ByCollection:
		return r.nextCollection()
	}
	return r.nextOwner()
}

// nextOwner returns the repository at the position, or the next one by ordinal.
func (r *recordReader) nextOwner() (st stretch, ok bool, err error) {
	o := r.at.Ordinal
	if r.at.passed {
		o++
	}
	if !r.places.SeekGE(ordinalKey(nil, spaceOwner, o)) {
		return st, false, engineError(r.places.Error())
	}
	if st.ordinal, err = parseOrdinalKey(spaceOwner, r.places.Key()); err != nil ||
		st.ordinal >= r.pass.End {
		return st, false, err
	}
	st.did, err = parseDID(r.places.Value())
	return st, true, err
}

// nextCollection returns the repository and collection at the position, or the next ones.
func (r *recordReader) nextCollection() (st stretch, ok bool, err error) {
	name, _, _ := bytes.Cut(r.at.Path, []byte{'/'})
	o := r.at.Ordinal
	if r.at.passed {
		o++
	}
	r.key = collectionKey(r.key[:0], name, o)
	if len(name) == 0 {
		r.key = append(r.key[:0], spaceCollection)
	}
	for {
		r.key = r.wanted(r.key)
		if r.key == nil || !r.places.SeekGE(r.key) {
			return st, false, engineError(r.places.Error())
		}
		key := r.places.Key()
		name, o, err := parseCollectionKey(key)
		if err != nil {
			return st, false, err
		}
		if !bytes.Equal(r.wanted(key), key) { // behind its range
			r.key = append(r.key[:0], key...)
			continue
		}
		if o >= r.pass.End || !r.pass.filter.Collection(name) {
			// the next collection
			r.key = append(append(append(r.key[:0], spaceCollection), name...), 1)
			continue
		}
		st.ordinal, st.collection = o, append(bytes.Clone(name), '/')
		err = get(r.view, ordinalKey(nil, spaceOwner, o), func(v []byte) (err error) {
			st.did, err = parseDID(v)
			return err
		})
		if errors.Is(err, ErrNotFound) {
			err = fmt.Errorf("collection %s of ordinal %d has no owner: %w", name, o, ErrCorrupt)
		}
		return st, true, err
	}
}

// wanted returns the first key of the keyspace of collections at or behind a key that is in a range
// of the pass, or nil.
func (r *recordReader) wanted(key []byte) []byte {
	ranges := r.pass.ranges
	i := sort.Search(len(ranges), func(i int) bool {
		return bytes.Compare(ranges[i].Upper, key[1:]) > 0
	})
	switch {
	case i == len(ranges):
		return nil
	case bytes.Compare(key[1:], ranges[i].Lower) < 0:
		return append([]byte{spaceCollection}, ranges[i].Lower...)
	}
	return key
}

// nextDID returns the wanted account at the position, or the next one.
func (r *recordReader) nextDID() (st stretch, ok bool, err error) {
	i, found := slices.BinarySearch(r.pass.dids, r.at.DID)
	if found && r.at.passed {
		i++
	}
	if i == len(r.pass.dids) {
		return st, false, nil
	}
	st.did = r.pass.dids[i]
	return st, true, nil
}

// read passes the records of a stretch behind the position.
func (r *recordReader) read(st stretch) error {
	blocks, err := newBlockCursor(r.view, st.ordinal)
	if err != nil {
		return err
	}
	r.key = append(recordKey(r.key[:0], st.ordinal, r.at.Path), 0)
	ok := r.rows.SeekGE(r.key)
	for ; ok && err == nil && !r.full && r.left > 0; r.left-- {
		o, path, perr := parseRecordKey(r.rows.Key())
		if perr != nil {
			err = perr
			break
		}
		if o != st.ordinal || !bytes.HasPrefix(path, st.collection) {
			ok = false
			break
		}
		r.at.Path = append(r.at.Path[:0], path...)
		collection, rkey, valid := repo.SplitPath(path)
		if valid && st.collection == nil && !r.pass.filter.Collection(collection) {
			// '0' follows '/'
			r.key = recordKey(r.key[:0], o, append(bytes.Clone(collection), '0'))
			ok = r.rows.SeekGE(r.key)
			continue
		}
		if valid {
			err = r.record(st.did, collection, rkey, blocks)
		}
		ok = r.rows.Next()
	}
	if err == nil {
		err = r.rows.Error()
	}
	r.at.passed = !ok && err == nil
	return errors.Join(engineError(err), engineError(blocks.it.Close()))
}

// record passes the record at the row if it is shown.
func (r *recordReader) record(did string, collection, rkey []byte, blocks *blockCursor) error {
	row, err := parseRecordRow(r.rows.Value())
	if err != nil || row.place() != shown {
		return err
	}
	body, err := blocks.get(row.block)
	if err != nil {
		return fmt.Errorf("record %s of %s: %w", r.at.Path, did, err)
	}
	rev := r.ev.Rev
	if string(row.rev) != rev { // most records of a copy have the same
		rev = string(row.rev)
	}
	r.ev = Event{Kind: KindRecord, DID: did, Rev: rev, Action: Create,
		Collection: collection, Rkey: rkey, CID: row.cid, Record: body}
	r.full = !r.fn(&r.ev, r.at)
	return nil
}
