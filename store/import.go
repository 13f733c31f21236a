package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"cistern/filter"
	"cistern/ingest/repo"
)

const (
	// leaseOrdinals is how many ordinals an import group may assign.
	leaseOrdinals = 4096
	// flipMembersMax bounds the members that a batch makes visible: it holds their locks for 15 to
	// 30 µs each, and the sequencer for a part of that, while live commits wait for both.
	flipMembersMax = 256
	// firstGroup is the part of Options.GroupAge after which the first group of a burst is closed.
	// Each further group may become twice as old, so that consumers have something to read soon
	// after a backfill began, and few groups are small.
	firstGroup = 8
)

// Import is the first copy of a repository, already verified.
type Import struct {
	DID string
	// the row's attempt when the fetch began; if it differs at the flip, the copy is dropped
	Attempt uint64
	Rev     string
	Filter  uint32 // selection by which its records are chosen
	Blocks  int    // distinct blocks of the CAR: repo.Leaf.Block is below it
	// Walk calls fn for the leaves in key order. It was walked before without an error; an error
	// now fails the store's group and every repository in it.
	Walk func(fn func(repo.Leaf) error) error
	// Complete sets what the row must hold from the flip on (state, rev, data, commit, identity).
	// It gets the row as it is on disk, under its lock, and must take no other lock. The store sets
	// the ordinal and the counts. Complete adds to b the events that the completion has besides
	// those of the import.
	Complete func(b *Batch, r *Repo)
	// Done is called once: with nil when the copy is durable and visible, with ErrStale when it was
	// dropped, else with the failure. It must return soon and must not import.
	Done func(r Repo, err error)
}

// ordinals assigns leases and knows which are open.
type ordinals struct {
	mu   sync.Mutex
	next Ordinal              // mu guards
	open map[Ordinal]struct{} // mu guards: first ordinals of open leases
	// opened and age are when the last group was opened, and the age at which it is closed. mu
	// guards.
	opened time.Time
	age    time.Duration
}

// ageOf returns the age at which a group that is opened now is closed: at most limit, and less at
// the beginning of a burst. The caller holds o.mu.
func (o *ordinals) ageOf(now time.Time, limit time.Duration) time.Duration {
	if now.Sub(o.opened) > 2*o.age {
		o.age = limit / firstGroup
	} else {
		o.age = min(2*o.age, limit)
	}
	o.opened = now
	return o.age
}

// lowestOpen returns the first ordinal that an open import may still fill.
func (o *ordinals) lowestOpen() Ordinal {
	o.mu.Lock()
	defer o.mu.Unlock()
	low := o.next
	for first := range o.open {
		low = min(low, first)
	}
	return low
}

// OrdinalsEnd returns a lower bound for the ordinals of all imports that are not complete yet.
func (s *Store) OrdinalsEnd() Ordinal { return s.ords.lowestOpen() }

// release ends a lease, whose row is gone. Ordinals from next on were not used: the next group
// takes them if no other lease follows, as small groups would otherwise use ordinals up within a
// year.
func (o *ordinals) release(first, next Ordinal) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.open, first)
	if o.next == first+leaseOrdinals {
		o.next = next
	}
}

// group gathers first copies. No goroutine holds a repository's lock for an open group.
type group struct {
	s       *Store
	due     time.Time // when it is closed, however small it is
	first   Ordinal   // the lease is [first, first+leaseOrdinals)
	next    Ordinal
	leased  func() error // waits for the lease to be durable
	members []member
	sink    sink
	scratch importScratch
}

type member struct {
	Import
	ordinal     Ordinal
	nextBlock   uint32
	records     int64
	events      uint32
	hidden      uint32
	collections []collectionCount
	filter      *filter.Filter
	shelved     int64
}

type collectionCount struct {
	name  string
	count int64
}

// countListed counts one more record of a collection behind those of earlier collections.
func countListed(counts []collectionCount, collection []byte) []collectionCount {
	if n := len(counts); n == 0 || counts[n-1].name != string(collection) {
		counts = append(counts, collectionCount{name: string(collection)})
	}
	counts[len(counts)-1].count++
	return counts
}

// importScratch is reused between the members of a group.
type importScratch struct {
	key     []byte
	value   []byte
	listing listingWriter
	numbers []uint32 // block number + 1 by Leaf.Block
	refs    []uint32 // record rows that hold a block, by block number
}

// Import appends a first copy to an import group and returns; im.Walk is not used afterwards.
// im.Done is called when the group is flipped: by size, by age (Run) or by FlushImports. An error
// means that the store can no longer be written, or that ctx ended; Done is called with it too. The
// caller must not hold the lock of a repository: the flip takes them.
func (s *Store) Import(ctx context.Context, im Import) error {
	_, err := s.FilterAt(im.Filter)
	if err := errors.Join(ctx.Err(), s.usable(), err); err != nil {
		im.Done(Repo{}, err)
		return err
	}
	sl := s.slots.take(im.Blocks)
	defer s.slots.release(sl)
	if sl.g == nil {
		g, err := s.openGroup()
		if err != nil {
			s.fail(err)
			im.Done(Repo{}, s.failure)
			return s.failure
		}
		sl.g = g
	}
	err = sl.g.append(im)
	if err == nil && !s.slots.large(sl) && !sl.g.full() {
		return nil
	}
	return s.finish(sl, err)
}

// full reports whether the group takes no further members.
func (g *group) full() bool {
	return g.sink.bytes() >= g.s.opts.GroupBytes || g.next >= g.first+leaseOrdinals ||
		!g.s.now().Before(g.due)
}

// FlushImports flips all open groups now, beginning with those that no import is appending to.
func (s *Store) FlushImports() error {
	var errs []error
	var busy []*slot
	flush := func(sl *slot) {
		if sl.g != nil {
			errs = append(errs, s.finish(sl, nil))
		}
		s.slots.release(sl)
	}
	for i := range s.slots.all {
		if sl := &s.slots.all[i]; s.slots.try(sl) {
			flush(sl)
		} else {
			busy = append(busy, sl)
		}
	}
	for _, sl := range busy {
		s.slots.wait(sl)
		flush(sl)
	}
	return errors.Join(errs...)
}

// runImports flips groups by age, and all of them at the end.
func (s *Store) runImports(ctx context.Context) error {
	t := time.NewTicker(max(s.opts.GroupAge/(2*firstGroup), time.Millisecond))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return s.FlushImports()
		case <-t.C:
		}
		for i := range s.slots.all {
			sl := &s.slots.all[i]
			// The import that has taken a slot checks the age itself.
			if !s.slots.try(sl) {
				continue
			}
			var err error
			if sl.g != nil && !s.now().Before(sl.g.due) {
				err = s.finish(sl, nil)
			}
			s.slots.release(sl)
			if err != nil {
				return err
			}
		}
	}
}

// openGroup leases a range of ordinals. The lease is in the write-ahead log before any row
// of the group; a crash from here on leaves it, and recoverLeases deletes what it covers.
func (s *Store) openGroup() (*group, error) {
	s.enterWrites() // before the mutex, which lists of repositories take
	defer s.leaveWrites()
	s.ords.mu.Lock()
	defer s.ords.mu.Unlock()
	now := s.now()
	g := &group{s: s, due: now.Add(s.ords.ageOf(now, s.opts.GroupAge)),
		first: s.ords.next, next: s.ords.next}
	end := g.first + leaseOrdinals
	if end > OrdinalMax {
		return nil, fmt.Errorf("ordinals are used up at %d", end)
	}
	b := s.NewBatch()
	b.inside = true
	b.set(ordinalKey(nil, spaceLease, g.first), appendOrdinal(nil, end))
	b.fail(setMetaNumber(b.b, metaOrdinal, uint64(end)))
	wait, err := b.Commit()
	if err != nil {
		return nil, err
	}
	s.ords.next = end
	s.ords.open[g.first] = struct{}{}
	g.leased = wait
	g.sink.init(s)
	return g, nil
}

// recoverLeases deletes what import groups left behind when a crash came before their flip.
func (s *Store) recoverLeases() error {
	next, err := s.metaNumber(s.db, metaOrdinal, 1)
	if err != nil {
		return err
	}
	s.ords.next, s.ords.open = Ordinal(next), map[Ordinal]struct{}{}
	if s.opts.ReadOnly {
		return nil
	}
	if err := s.opts.FS.RemoveAll(s.importDir()); err != nil {
		return err
	}
	if err := s.opts.FS.MkdirAll(s.importDir(), 0o755); err != nil {
		return err
	}
	b := s.NewBatch()
	err = scan(s.db, []byte{spaceLease}, spaceEnd(spaceLease), func(key, value []byte) (bool, error) {
		first, err := parseOrdinalKey(spaceLease, key)
		if err != nil || len(value) != ordinalBytes {
			return false, errors.Join(errKey(spaceLease, key), err)
		}
		b.fail(deleteOrdinals(b.b, first, parseOrdinal(value)))
		b.delete(key)
		return true, nil
	})
	if err != nil || b.b.Empty() {
		return errors.Join(err, b.b.Close())
	}
	return b.CommitSync()
}

// append writes the rows of one repository. The caller holds the slot.
func (g *group) append(im Import) error {
	m := member{Import: im, ordinal: g.next}
	g.next++
	f, err := g.s.FilterAt(im.Filter)
	if err != nil {
		return err
	}
	m.filter = f
	x := &g.scratch
	x.numbers = slices.Grow(x.numbers[:0], im.Blocks)[:im.Blocks]
	clear(x.numbers)
	x.refs = x.refs[:0]
	x.listing.begin(0)
	err = im.Walk(func(l repo.Leaf) error { return g.leaf(&m, l) })
	if err == nil {
		err = g.closeListing(&m)
	}
	for block := 0; err == nil && block < len(x.refs); block++ {
		if n := x.refs[block]; n > 1 {
			x.key = numberedKey(x.key[:0], spaceRef, m.ordinal, uint32(block))
			x.value = binary.AppendUvarint(x.value[:0], uint64(n))
			err = g.sink.put(tableRef, x.key, x.value)
		}
	}
	g.members = append(g.members, m)
	if err != nil {
		return fmt.Errorf("import %s: %w", im.DID, err)
	}
	return nil
}

// leaf writes one record if it is to be kept, and its block unless the repository has an equal one.
func (g *group) leaf(m *member, l repo.Leaf) error {
	collection, _, valid := repo.SplitPath(l.Key)
	at := g.s.placeOf(m.filter, collection, valid)
	if at == absent {
		return nil
	}
	x := &g.scratch
	number := m.nextBlock
	if n := x.numbers[l.Block]; n != 0 {
		number = n - 1
		x.refs[number]++
	} else {
		x.numbers[l.Block] = number + 1
		x.refs = append(x.refs, 1)
		m.nextBlock++
		x.key = numberedKey(x.key[:0], spaceBlock, m.ordinal, number)
		if err := g.sink.put(tableBlock, x.key, l.Record); err != nil {
			return err
		}
		if g.s.ephemeral { // only the log keeps it
			g.s.growth.wrote(x.key, l.Record)
		}
	}
	x.key = recordKey(x.key[:0], m.ordinal, l.Key)
	x.value = recordRow{hidden: at == hidden, shelved: at == shelved, block: number,
		cid: l.CID}.append(x.value[:0])
	x.value = append(x.value, m.Rev...)
	if err := g.sink.put(tableRecord, x.key, x.value); err != nil {
		return err
	}
	if g.s.ephemeral {
		g.s.growth.wrote(x.key, x.value)
	}
	switch at {
	case shelved:
		m.shelved++
		return nil
	case hidden:
		m.records++
		m.hidden++
		return nil
	}
	m.records++
	full := x.listing.add(l.Key, number)
	m.collections = countListed(m.collections, collection)
	if !full {
		return nil
	}
	return g.closeListing(m)
}

// closeListing writes the open listing row unless it is empty.
func (g *group) closeListing(m *member) error {
	w := &g.scratch.listing
	m.events = w.next
	if w.empty() {
		return nil
	}
	g.scratch.key = numberedKey(g.scratch.key[:0], spaceListing, m.ordinal, w.first)
	g.s.growth.wrote(g.scratch.key, w.row)
	err := g.sink.put(tableListing, g.scratch.key, w.row)
	w.begin(w.next)
	return err
}

// finish writes the group, flips it and empties the slot. failed is an error of an append, after
// which the group must not be flipped.
func (s *Store) finish(sl *slot, failed error) error {
	g := sl.g
	sl.g = nil
	// The lease must be durable before any row of the group is: a crash after an ingest leaves rows
	// that it covers.
	err := errors.Join(failed, g.leased())
	if err == nil {
		err = g.write()
	}
	var rows []Repo
	if err == nil {
		rows, err = g.flip()
	}
	s.ords.release(g.first, g.next)
	g.sink.close()
	if err != nil {
		s.fail(err)
		err = s.failure
	}
	for i, m := range g.members {
		switch {
		case err != nil:
			m.Done(Repo{}, err)
		case rows[i].DID == "":
			m.Done(Repo{}, ErrStale)
		default:
			m.Done(rows[i], nil)
		}
	}
	return err
}

// write brings the group's rows into the database, where no row names them yet.
func (g *group) write() error {
	s := g.s
	if !g.sink.tabled() {
		s.metrics.groups.WithLabelValues(wayBatch).Inc()
		return g.sink.applyBatches(s)
	}
	s.metrics.groups.WithLabelValues(wayTables).Inc()
	paths, err := g.sink.finishTables()
	if err != nil {
		return err
	}
	s.opts.Step("before ingest")
	if err := s.ingest(paths); err != nil {
		return fmt.Errorf("ingest import group: %w", engineError(err))
	}
	s.opts.Step("after ingest")
	return nil
}

// flip makes the members visible, some at a time, and waits for the disk once. The rows of dropped
// members are zero.
func (g *group) flip() (rows []Repo, err error) {
	rows = make([]Repo, len(g.members))
	var waits []func() error
	for from := 0; from < len(rows) && err == nil; from += flipMembersMax {
		var wait func() error
		if wait, err = g.flipSome(rows, from, min(from+flipMembersMax, len(rows))); err == nil {
			waits = append(waits, wait)
		}
		runtime.Gosched() // what was ready meanwhile need not wait for the next batch too
	}
	for _, wait := range waits {
		err = errors.Join(err, wait())
	}
	if err != nil {
		return nil, err
	}
	g.s.opts.Step("flipped")
	return rows, nil
}

// flipSome makes the members [from, to) visible in one batch, and takes their ordinals out of the
// lease, so that a crash between two batches leaves a lease for the members that follow. It holds
// all their locks, taken in order of DID, until the batch is applied.
func (g *group) flipSome(rows []Repo, from, to int) (wait func() error, err error) {
	s := g.s
	order := make([]int, to-from)
	for i := range order {
		order[i] = from + i
	}
	slices.SortStableFunc(order,
		func(a, b int) int { return strings.Compare(g.members[a].DID, g.members[b].DID) })
	b := s.NewBatch()
	last, held := "", false // a repository may occur twice, by two attempts; one copy is kept
	for _, i := range order {
		m := &g.members[i]
		if m.DID != last {
			defer s.Lock(m.DID)()
			last, held = m.DID, false
		}
		if rows[i], err = g.complete(b, m, held); err != nil {
			return nil, err
		}
		held = held || rows[i].Ordinal != 0
	}
	b.delete(ordinalKey(nil, spaceLease, g.members[from].ordinal))
	if to < len(g.members) {
		b.set(ordinalKey(nil, spaceLease, g.members[to].ordinal),
			appendOrdinal(nil, g.first+leaseOrdinals))
	}
	return b.Commit()
}

// complete adds one member to the flip, or abandons its rows. held means that the batch completes
// another copy of the repository already.
func (g *group) complete(b *Batch, m *member, held bool) (Repo, error) {
	r, err := g.s.Repo(m.DID)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Repo{}, err
	}
	if err != nil || held || r.Attempt != m.Attempt || r.Ordinal != 0 {
		b.abandon(m.ordinal)
		return Repo{}, b.err
	}
	r.Ordinal, r.NextBlock = m.ordinal, m.nextBlock
	r.Records, r.Blocks = m.records, int64(m.nextBlock)
	r.Listed, r.Hidden, r.Collections = max(m.events, 1), m.hidden, uint32(len(m.collections))
	r.Filter, r.Sweep, r.Lacks, r.Shelved = m.Filter, false, false, m.shelved
	m.Complete(b, &r) // first, since it may show the account again
	b.census.imported(m.ordinal, m.collections)
	if m.events > 0 {
		e := entry{entryV1: entryV1{Kind: entryImport, DID: appendDID(nil, m.DID), Rev: m.Rev,
			Ordinal: m.ordinal, Count: m.events},
			collections: m.collections}
		if g.s.ephemeral {
			e.Blocks = m.nextBlock
		}
		for _, c := range m.collections {
			e.arrivals = append(e.arrivals, b.census.arrival(c.name, Arrivals{Created: uint64(c.count)}))
		}
		b.entries = append(b.entries, e)
	}
	b.PutRepo(&r)
	return r, b.err
}
