package store

import (
	"encoding/binary"
	"errors"
)

// census writes the rows that say how many records of a collection a repository shows (keyspace
// 'd'), and adds to the totals of collections what follows. The totals count what readers see:
// these rows, for accounts that are not hidden. So a batch notes how it changes the rows, and
// PutRepo adds to the totals the changes; or, when an account is shown again, all of its rows; or,
// when it is hidden, it takes all of them away. It belongs to one batch.
type census struct {
	b      *Batch
	totals map[string]*totalChange // each of them is held
	// all is the change of the total of everything, beside what others add; without a total
	all   totalChange
	shown map[Ordinal]*shownChanges
}

// shownChanges are the changes of a batch in the rows of one ordinal.
type shownChanges struct {
	before  []collectionCount // the rows before the batch
	known   bool              // before is set
	changes []shownChange
	counted int // changes that the totals have, or had when the account was hidden
}

type shownChange struct {
	collection     string
	repos, records int64
}

// set writes how many records of a collection an ordinal shows, which were was. It is the only way
// to change a row, but for the repair of a wrong one.
func (c *census) set(at collectionOf, was, n int64) {
	change := shownChange{collection: at.collection, records: n - was}
	switch {
	case was == 0 && n > 0:
		change.repos = 1
	case was > 0 && n == 0:
		change.repos = -1
	}
	c.b.deltas[countCollections] += change.repos
	c.write(at, n, change)
}

// correct writes the right number over a wrong one. Whether the totals have counted the wrong one
// is unknown. They are only raised: too high a total is harmless until RepairCounters, and one
// below zero would end the store.
func (c *census) correct(at collectionOf, n int64) error {
	s := c.b.s
	was, err := s.shownIn(s.db, at.ordinal, at.collection)
	if err != nil {
		return err
	}
	change := shownChange{collection: at.collection, records: max(0, n-was)}
	if was == 0 && n > 0 {
		change.repos = 1
	}
	c.write(at, n, change)
	c.b.counts = append(c.b.counts, collectionCounted{at, n})
	return nil
}

func (c *census) write(at collectionOf, n int64, change shownChange) {
	b := c.b
	if key := collectionKey(b.key[:0], []byte(at.collection), at.ordinal); n == 0 {
		b.delete(key)
	} else {
		b.value = binary.AppendUvarint(b.value[:0], uint64(n))
		b.set(key, b.value)
	}
	sh := c.of(at.ordinal)
	sh.changes = append(sh.changes, change)
}

// of returns the changes of an ordinal.
func (c *census) of(o Ordinal) *shownChanges {
	sh := c.shown[o]
	if sh == nil {
		if c.shown == nil {
			c.shown = map[Ordinal]*shownChanges{}
		}
		sh = &shownChanges{}
		c.shown[o] = sh
	}
	return sh
}

// imported writes the rows of a first copy.
func (c *census) imported(o Ordinal, all []collectionCount) {
	sh := c.of(o)
	sh.known, sh.changes = true, make([]shownChange, 0, len(all))
	for _, n := range all {
		c.set(collectionOf{o, n.name}, 0, n.count)
	}
}

// drop deletes the rows of an ordinal, and returns what they were.
func (c *census) drop(o Ordinal) ([]collectionCount, error) {
	all, err := c.before(o)
	for _, n := range all {
		c.set(collectionOf{o, n.name}, n.count, 0)
	}
	return all, err
}

// before returns the rows of an ordinal before the batch. It takes two seeks for each. Their number
// is bounded: neither a copy nor a live commit brings a repository above 10,000 collections
// (collectionsMax of packages backfill/fetch and ingest), and a difference that goes from one such
// copy to another has at most twice as many meanwhile. TestHideManyCollections has that many.
func (c *census) before(o Ordinal) ([]collectionCount, error) {
	sh, s := c.of(o), c.b.s
	if sh.known {
		return sh.before, nil
	}
	err := s.at(func(rd reader) error {
		return s.eachCollection(rd, o, func(name string) (bool, error) {
			n, err := s.shownIn(rd, o, name)
			if n > 0 {
				sh.before = append(sh.before, collectionCount{name, n})
			}
			return true, err
		})
	})
	sh.known = err == nil
	return sh.before, err
}

// move adds to the totals what follows from a change of the row of a repository.
func (c *census) move(old, now rowState) {
	c.all.addRepos += now.showing() - old.showing()
	from, to := old.visible(), now.visible()
	if from != 0 && from != to {
		c.addRows(from, -1)
	}
	switch {
	case to == 0:
	case from != to:
		c.addRows(to, 1)
	default:
		if sh := c.shown[to]; sh != nil {
			c.add(sh.changes[sh.counted:], 1)
			sh.counted = len(sh.changes)
		}
	}
}

// addRows adds all rows of an ordinal to the totals, or takes away what the totals have of them.
func (c *census) addRows(o Ordinal, sign int64) {
	before, err := c.before(o)
	c.b.fail(err)
	for _, n := range before {
		t := c.total(n.name)
		t.addRepos += sign
		t.addRecords += sign * n.count
	}
	sh := c.of(o)
	if sign > 0 {
		sh.counted = len(sh.changes)
	}
	c.add(sh.changes[:sh.counted], sign)
}

func (c *census) add(changes []shownChange, sign int64) {
	for _, change := range changes {
		t := c.total(change.collection)
		t.addRepos += sign * change.repos
		t.addRecords += sign * change.records
	}
}

// total returns the change that the batch makes to a total, which it holds from then on.
func (c *census) total(name string) *totalChange {
	t := c.totals[name]
	if t != nil {
		return t
	}
	if c.totals == nil {
		c.totals = map[string]*totalChange{}
	}
	t = &totalChange{heldTotal: c.b.s.totals.pin(name)}
	c.totals[name] = t
	c.b.fail(c.b.s.loadTotal(t.heldTotal))
	return t
}

// arrival returns what an entry of the log adds to the arrivals of a collection.
func (c *census) arrival(collection string, a Arrivals) arrival {
	return arrival{c.total(collection).heldTotal, a}
}

// release ends the hold on the totals, after the batch was applied or discarded.
func (c *census) release() {
	c.b.s.totals.release(c.totals)
	c.totals = nil
}

// shownIn returns how many records of a collection an ordinal shows.
func (s *Store) shownIn(rd reader, o Ordinal, collection string) (n int64, err error) {
	err = get(rd, collectionKey(nil, []byte(collection), o), func(v []byte) (err error) {
		n, err = parseCountValue(v)
		return err
	})
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	return n, err
}

// visible returns the ordinal whose records readers see, 0 if they see none.
func (r rowState) visible() Ordinal {
	if !r.exists || r.hidden {
		return 0
	}
	return r.ordinal
}

// showing is 1 if readers see a record of the repository, else 0.
func (r rowState) showing() int64 {
	if r.visible() != 0 && r.shows {
		return 1
	}
	return 0
}
