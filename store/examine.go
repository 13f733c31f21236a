package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"cistern/filter"
	"cistern/ingest/repo"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// examinePage is the number of rows that Examine reads between two pauses: some 5 ms of work.
	examinePage = 4096
	// differencesKept bounds the texts that an Examination keeps, of a few hundred bytes each.
	differencesKept = 8
	// correctionsMax bounds each list of corrections of an Examination, and damagedMax the records
	// that one Repair deletes: some MB of memory, and of a batch. What exceeds them is found again
	// by the next Examine.
	correctionsMax = 64 << 10
	damagedMax     = 4096
)

// Examination is what the rows of one repository make, compared with what is stored about them.
type Examination struct {
	// Repo is the row as it was. Nothing was examined if it has no ordinal.
	Repo Repo
	// Records is the number of record rows that were read.
	Records int64
	// Tree reports that the records are a whole tree, whose root was compared with the commit.
	Tree bool
	// Differences counts the differences, and Texts has the first few.
	Differences int
	Texts       []string

	raw     []byte // the row on disk
	correct corrections
	damaged [][]byte // paths of records whose body does not have their CID
	refetch bool     // only another copy repairs it
}

// corrections are new values of rows that derive from others.
type corrections struct {
	counted     bool // held, of which some counts are not those of the row
	held        Repo
	refs        map[uint32]int64 // by block; 1 needs no row
	collections []collectionCounted
	lost        []uint32 // blocks that are missing, held by records or superseded
	astray      [][]byte // paths of records that refer to a block that was never assigned
	orphans     []uint32 // blocks that nothing refers to and that are not superseded
	freed       [][]byte // superseded rows of blocks that records refer to
}

func (c *corrections) any() bool {
	return c.counted || len(c.refs)+len(c.collections)+len(c.lost)+len(c.astray)+
		len(c.orphans)+len(c.freed) > 0
}

// Examine recomputes what derives from the record rows of a repository: the root of its tree, its
// references, the counts in its row and of its collections. It hashes every body. Superseded
// blocks, and counts of collections without a record, are compared only if something else differs
// and pause is nil, since that takes a look at rows of all repositories.
//
// If pause is not nil, it is called after every few thousand rows, between two short views of the
// store. If the repository has changed since the first of them, the error is ErrStale. If pause is
// nil, Examine reads the repository in one view, however long it takes. ErrCorrupt means a row that
// cannot be read; differences are no error.
func (s *Store) Examine(ctx context.Context, did string,
	pause func(context.Context) error) (x Examination, err error) {
	e := examiner{s: s, ctx: ctx, did: did, pause: pause, x: &x,
		shared: map[uint32]int64{}, met: map[string]bool{}}
	err = e.run()
	return x, errors.Join(err, e.close())
}

type examiner struct {
	s     *Store
	ctx   context.Context
	did   string
	pause func(context.Context) error
	x     *Examination

	view   *view
	blocks *pebble.Iterator // of the view; nil until it is needed
	filter *filter.Filter
	tree   repo.Tree
	held   Repo             // counts recomputed from the rows
	seen   blockSet         // blocks that records refer to
	shared map[uint32]int64 // of those, the number of records if more than one
	key    []byte           // scratch

	met        map[string]bool // collections of which there are record rows
	collection []byte          // the current one
	shown      int64           // records of it
	wanted     place           // of its records
}

func (e *examiner) run() error {
	if err := e.open(); err != nil || e.x.Repo.Ordinal == 0 {
		return err
	}
	if err := e.begin(); err != nil {
		return err
	}
	o := e.x.Repo.Ordinal
	for _, step := range []func() error{
		func() error { return e.each(ordinalKey(nil, spaceRecord, o), e.record) },
		e.endCollection,
		e.refRows,
		func() error { return e.each(ordinalKey(nil, spaceBlock, o), e.blockRow) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	e.compare()
	if e.pause == nil && e.x.Differences > 0 {
		return errors.Join(e.superseded(), e.strayCollections())
	}
	return nil
}

// open takes a view. The row must be the one of the first view.
func (e *examiner) open() error {
	v, err := e.s.view()
	if err != nil {
		return err
	}
	e.view = &v
	var raw []byte
	err = get(v, repoKey(nil, e.did), func(b []byte) error { raw = bytes.Clone(b); return nil })
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	switch {
	case e.x.raw != nil && !bytes.Equal(e.x.raw, raw):
		return ErrStale
	case e.x.raw != nil || raw == nil:
		return nil
	}
	e.x.raw = raw
	e.x.Repo, err = e.s.loadRepo(v, e.did)
	return err
}

func (e *examiner) close() error {
	var err error
	if e.blocks != nil {
		err, e.blocks = engineError(e.blocks.Close()), nil
	}
	if e.view != nil {
		err, e.view = errors.Join(err, e.view.close()), nil
	}
	return err
}

// differs counts a difference.
func (e *examiner) differs(format string, args ...any) {
	e.x.Differences++
	if len(e.x.Texts) < differencesKept {
		e.x.Texts = append(e.x.Texts, fmt.Sprintf(format, args...))
	}
}

// begin compares the row with its commit, and finds out whether the records are a whole tree.
func (e *examiner) begin() error {
	r := &e.x.Repo
	// What the next copy replaces does not differ: the commit, the tree and the places of a torn
	// repository.
	commit, err := repo.ParseCommit(r.Commit)
	if !r.Torn && (err != nil || commit.DID != r.DID || commit.Rev != r.Rev || commit.Data != r.Data) {
		e.differs("rev %s and data %s are not those of its commit (%v)", r.Rev, r.Data, err)
		e.x.refetch = true
	}
	if e.filter, err = e.s.FilterAt(r.Filter); err != nil {
		// A selection is deleted once no row names it: this row may have changed since.
		now, rerr := e.s.loadRepo(e.s.db, e.did)
		if rerr != nil || now.Filter != r.Filter {
			return ErrStale
		}
		return err
	}
	e.x.Tree = r.Whole(e.filter) && r.Verified != VerifiedOps && !e.s.ephemeral
	return nil
}

// each calls fn for each row that begins with a prefix, and pauses after every page.
func (e *examiner) each(prefix []byte, fn func(it *pebble.Iterator) error) error {
	upper := ordinalKey(nil, prefix[0], e.x.Repo.Ordinal+1)
	for lower := prefix; lower != nil; {
		it, err := e.view.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
		if err != nil {
			return engineError(err)
		}
		lower = nil
		n := 0
		for ok := it.First(); ok && err == nil; ok = it.Next() {
			if n == examinePage {
				lower = bytes.Clone(it.Key())
				break
			}
			n++
			err = fn(it)
		}
		if err = errors.Join(err, engineError(it.Close())); err == nil && lower != nil {
			err = e.rest()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// rest ends a page.
func (e *examiner) rest() error {
	if err := e.ctx.Err(); err != nil || e.pause == nil {
		return err
	}
	if err := e.close(); err != nil {
		return err
	}
	if err := e.pause(e.ctx); err != nil {
		return err
	}
	return e.open()
}

func (e *examiner) record(it *pebble.Iterator) error {
	_, path, err := parseRecordKey(it.Key())
	if err != nil {
		return err
	}
	value, err := it.ValueAndErr()
	if err != nil {
		return engineError(err)
	}
	row, err := parseRecordRow(value)
	if err != nil {
		return err
	}
	e.x.Records++
	at := row.place()
	e.held.moved(absent, at)
	if e.x.Tree {
		e.tree.Add(path, row.cid)
	}
	// A number that was not assigned could make the set large.
	if row.block < e.x.Repo.NextBlock && !e.seen.add(row.block) {
		e.shared[row.block] = max(e.shared[row.block], 1) + 1
	}
	if err := e.place(path, at); err != nil {
		return err
	}
	return e.body(path, row)
}

// place compares the place of a record with its path and with the filter, and counts its
// collection.
func (e *examiner) place(path []byte, at place) error {
	r := &e.x.Repo
	collection, _, valid := repo.SplitPath(path)
	want := e.wanted
	switch {
	case !valid:
		want = placeOf(e.filter, nil, false)
	case !bytes.Equal(collection, e.collection):
		if err := e.endCollection(); err != nil {
			return err
		}
		e.collection = append(e.collection[:0], collection...)
		e.wanted = placeOf(e.filter, collection, true)
		want = e.wanted
	}
	if at == shown && valid {
		e.shown++
	}
	switch {
	case r.Torn:
		return nil
	case valid == (at == hidden):
		e.differs("record %s: hidden is %v", path, at == hidden)
	case at != want && !r.Sweep:
		e.differs("record %s: is %s, by its filter it is %s", path, at, want)
	default:
		return nil
	}
	e.x.refetch = true
	return nil
}

// endCollection compares the count of the current collection.
func (e *examiner) endCollection() error {
	n := e.shown
	if e.shown = 0; len(e.collection) == 0 {
		return nil
	}
	if n > 0 {
		e.held.Collections++
	}
	e.met[string(e.collection)] = true
	o, says := e.x.Repo.Ordinal, int64(0)
	err := get(e.view, collectionKey(nil, e.collection, o), func(v []byte) (err error) {
		says, err = parseCountValue(v)
		return err
	})
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if says != n {
		e.miscounted(e.collection, n, says)
	}
	return nil
}

func (e *examiner) miscounted(collection []byte, n, says int64) {
	e.differs("collection %s: %d records, its count is %d", collection, n, says)
	if c := &e.x.correct; len(c.collections) < correctionsMax {
		c.collections = append(c.collections,
			collectionCounted{collectionOf{e.x.Repo.Ordinal, string(collection)}, n})
	}
}

// strayCollections finds the counts of collections of which there is no record. Their keys begin
// with the collection, so that it takes one seek for each collection in the store.
func (e *examiner) strayCollections() error {
	it, err := e.view.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceCollection},
		UpperBound: spaceEnd(spaceCollection)})
	if err != nil {
		return engineError(err)
	}
	for ok := it.First(); ok && err == nil; {
		var collection []byte
		if collection, _, err = parseCollectionKey(it.Key()); err != nil {
			break
		}
		collection = bytes.Clone(collection)
		key := collectionKey(e.key[:0], collection, e.x.Repo.Ordinal)
		if it.SeekGE(key) && bytes.Equal(it.Key(), key) && !e.met[string(collection)] {
			n, perr := parseCountValue(it.Value())
			err = perr
			e.miscounted(collection, 0, n)
		}
		ok = it.SeekGE(append(append([]byte{spaceCollection}, collection...), 1))
	}
	return errors.Join(err, e.ctx.Err(), engineError(it.Close()))
}

// body compares a record with its body. Most blocks are in the order of the records.
func (e *examiner) body(path []byte, row recordRow) error {
	o := e.x.Repo.Ordinal
	if e.blocks == nil {
		it, err := e.view.NewIter(&pebble.IterOptions{LowerBound: ordinalKey(nil, spaceBlock, o),
			UpperBound: ordinalKey(nil, spaceBlock, o+1)})
		if err != nil {
			return engineError(err)
		}
		e.blocks = it
	}
	e.key = numberedKey(e.key[:0], spaceBlock, o, row.block)
	it := e.blocks
	at := func() bool { return it.Valid() && bytes.Equal(it.Key(), e.key) }
	if it.Valid() && bytes.Compare(it.Key(), e.key) < 0 {
		it.Next()
	}
	if !at() && (!it.SeekGE(e.key) || !at()) {
		if err := it.Error(); err != nil {
			return engineError(err)
		}
		e.differs("record %s: block %d is missing", path, row.block)
		switch c := &e.x.correct; {
		case len(c.lost)+len(c.astray) >= correctionsMax:
		case row.block < e.x.Repo.NextBlock:
			c.lost = append(c.lost, row.block)
		default:
			c.astray = append(c.astray, bytes.Clone(path))
		}
		return nil
	}
	body, err := it.ValueAndErr()
	if err != nil {
		return engineError(err)
	}
	if cid := repo.HashCID(body); cid != row.cid {
		e.differs("record %s: its body hashes to %s, not %s", path, cid, row.cid)
		if len(e.x.damaged) < damagedMax {
			e.x.damaged = append(e.x.damaged, bytes.Clone(path))
		}
		e.x.refetch = true
	}
	return nil
}

// refRows compares the references of blocks that several records share. Others have no row.
func (e *examiner) refRows() error {
	listed := map[uint32]bool{}
	correct := func(block uint32, n int64) {
		c := &e.x.correct
		if c.refs == nil {
			c.refs = map[uint32]int64{}
		}
		if len(c.refs) < correctionsMax {
			c.refs[block] = n
		}
	}
	err := e.each(ordinalKey(nil, spaceRef, e.x.Repo.Ordinal), func(it *pebble.Iterator) error {
		_, block, err := parseNumberedKey(spaceRef, it.Key())
		if err != nil {
			return err
		}
		n, err := parseCountValue(it.Value())
		if err != nil {
			return err
		}
		listed[block] = true
		if has := e.shared[block]; has != n && block >= e.x.Repo.Lapsed {
			e.differs("block %d: its references are %d, several records: %d", block, n, has)
			correct(block, has)
		}
		return nil
	})
	for block, n := range e.shared {
		if !listed[block] && block >= e.x.Repo.Lapsed {
			e.differs("block %d: %d records refer to it and it has no references", block, n)
			correct(block, n)
		}
	}
	return err
}

func (e *examiner) blockRow(it *pebble.Iterator) error {
	_, block, err := parseNumberedKey(spaceBlock, it.Key())
	e.held.Blocks++
	e.held.NextBlock = max(e.held.NextBlock, block+1)
	return err
}

// compare compares the counts of the row and the root.
func (e *examiner) compare() {
	r, held := &e.x.Repo, &e.held
	before := e.x.Differences
	for _, c := range [...]struct {
		what      string
		has, says int64
	}{
		{"records", held.Records, r.Records},
		{"shelved records", held.Shelved, r.Shelved},
		{"records of no valid path", int64(held.Hidden), int64(r.Hidden)},
		{"collections", int64(held.Collections), int64(r.Collections)},
		{"blocks", held.Blocks, r.Blocks},
	} {
		if c.has != c.says {
			e.differs("%d %s, its row says %d", c.has, c.what, c.says)
		}
	}
	if held.NextBlock > r.NextBlock {
		e.differs("block %d: the next block number is %d", held.NextBlock-1, r.NextBlock)
	}
	e.x.correct.counted, e.x.correct.held = e.x.Differences > before, *held
	if !e.x.Tree {
		return
	}
	if root := e.tree.Root(); root != r.Data {
		e.differs("the records make the root %s, its commit has %s", root, r.Data)
		e.x.refetch = true
	}
}

// superseded compares the blocks with the superseded rows. These are in the order of events, so
// that all of them have to be read.
func (e *examiner) superseded() error {
	o, c := e.x.Repo.Ordinal, &e.x.correct
	waiting, n := map[uint32]bool{}, 0
	err := scan(e.view, []byte{spaceSuperseded}, spaceEnd(spaceSuperseded),
		func(key, _ []byte) (bool, error) {
			if n++; n%examinePage == 0 && e.ctx.Err() != nil {
				return false, e.ctx.Err()
			}
			_, of, block, err := parseSupersededKey(key)
			if err != nil || of != o {
				return true, err
			}
			if !e.seen.has(block) {
				waiting[block] = true
				return true, nil
			}
			e.differs("block %d: is superseded, and records refer to it", block)
			if len(c.freed) < correctionsMax {
				c.freed = append(c.freed, bytes.Clone(key))
			}
			return true, nil
		})
	if err != nil {
		return err
	}
	err = e.each(ordinalKey(nil, spaceBlock, o), func(it *pebble.Iterator) error {
		_, block, err := parseNumberedKey(spaceBlock, it.Key())
		if !waiting[block] && !e.seen.has(block) && block >= e.x.Repo.Lapsed {
			e.differs("block %d: no record refers to it and it is not superseded", block)
			if len(c.orphans) < correctionsMax {
				c.orphans = append(c.orphans, block)
			}
		}
		delete(waiting, block)
		return err
	})
	for block := range waiting {
		if block < e.x.Repo.Lapsed {
			continue
		}
		e.differs("block %d: is superseded and missing", block)
		if len(c.lost) < correctionsMax {
			c.lost = append(c.lost, block)
		}
	}
	return err
}

// blockSet is a set of block numbers. Most are dense.
type blockSet struct {
	parts map[uint32]*[1 << 10]uint64 // by the upper 16 bits
	last  *[1 << 10]uint64
	at    uint32 // of last
}

func (b *blockSet) part(n uint32) *[1 << 10]uint64 {
	if b.last == nil || b.at != n>>16 {
		b.last, b.at = b.parts[n>>16], n>>16
	}
	return b.last
}

// add reports whether n is new.
func (b *blockSet) add(n uint32) bool {
	p := b.part(n)
	if p == nil {
		if b.parts == nil {
			b.parts = map[uint32]*[1 << 10]uint64{}
		}
		p = new([1 << 10]uint64)
		b.parts[n>>16], b.last = p, p
	}
	w, bit := &p[n&0xffff>>6], uint64(1)<<(n&63)
	was := *w&bit != 0
	*w |= bit
	return !was
}

func (b *blockSet) has(n uint32) bool {
	p := b.part(n)
	return p != nil && p[n&0xffff>>6]&(1<<(n&63)) != 0
}

// NeedsCopy reports that the next step of Repair queues the repository for another copy.
func (x *Examination) NeedsCopy() bool {
	return x.refetch && !x.correct.any() && x.Repo.Tracked != Untracked
}
