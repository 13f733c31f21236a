package store

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// totalsCached bounds one generation of the totals in memory, some 200 bytes each, in two
	// generations up to 3 MiB. Accounts invent collections, so that their number has no bound.
	totalsCached = 8 << 10
	// DaysKept is the number of days whose arrivals are kept, besides the newest. Days without an
	// event do not count, so that a clock that was wrong for a while drops nothing.
	DaysKept = 400
)

// heldTotal is a total in memory. Batches hold those that they change, so that the sequencer reads
// no row. A collection that shows no record has no row, and its arrivals are in rows of days.
type heldTotal struct {
	name string
	load sync.Once
	err  error // of load
	pins int   // totals.mu guards: batches that hold it

	// The sequencer's mutex guards the rest once it is loaded.
	total
	stored  bool // it has a row
	spilled bool // the arrivals of its day have a row
}

// totals has the totals that batches hold, and those that were held last.
type totals struct {
	mu       sync.Mutex
	new, old map[string]*heldTotal // mu guards
	carried  int                   // mu guards: totals that new began with

	all  *heldTotal // of everything, always held
	days []uint32   // the sequencer's mutex guards: earlier days that have a row of everything
}

// pin returns the total of a name, which stays in memory until release.
func (q *totals) pin(name string) *heldTotal {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := q.new[name]
	if t == nil {
		if t = q.old[name]; t == nil {
			t = &heldTotal{name: name}
		}
		if len(q.new) >= totalsCached+q.carried {
			q.turn()
		}
		q.new[name] = t
	}
	t.pins++
	return t
}

// turn begins a generation, and drops the oldest one but for what is held. mu is held.
func (q *totals) turn() {
	dropped := q.old
	q.old, q.new, q.carried = q.new, make(map[string]*heldTotal), 0
	for name, t := range dropped {
		if t.pins > 0 && q.old[name] == nil {
			q.new[name] = t
			q.carried++
		}
	}
}

// release ends the hold of a batch on its totals.
func (q *totals) release(held map[string]*totalChange) {
	if len(held) == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, c := range held {
		c.pins--
	}
}

// copied returns the totals in memory, but for those that a batch holds. The sequencer's mutex is
// held.
func (q *totals) copied() map[string]total {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := map[string]total{}
	for _, generation := range [...]map[string]*heldTotal{q.old, q.new} {
		for name, t := range generation {
			if t.pins == 0 && t.err == nil {
				out[name] = t.total
			}
		}
	}
	out[everything] = q.all.total
	return out
}

// loadTotals reads the total of everything, and which days have rows.
func (s *Store) loadTotals() error {
	q := &s.totals
	q.new = map[string]*heldTotal{}
	q.all = q.pin(everything)
	if err := s.loadTotal(q.all); err != nil {
		return err
	}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceDay},
		UpperBound: spaceEnd(spaceDay)})
	if err != nil {
		return engineError(err)
	}
	for ok := it.First(); ok && err == nil; {
		var day uint32
		var name []byte
		if day, name, err = parseDayKey(it.Key()); err != nil {
			break
		}
		if len(name) == 0 {
			q.days = append(q.days, day)
		}
		ok = it.SeekGE(dayKey(nil, day+1, nil))
	}
	return errors.Join(err, engineError(it.Close()))
}

// loadTotal reads a total, once. No batch that changes the total is committed before, since each
// holds it loaded.
func (s *Store) loadTotal(t *heldTotal) error {
	t.load.Do(func() {
		t.err = get(s.db, totalKey(nil, []byte(t.name)), func(v []byte) (err error) {
			t.total, err = parseTotal(v)
			return err
		})
		if t.stored = t.err == nil; !errors.Is(t.err, ErrNotFound) {
			return
		}
		// Its events to come are of this day, or of a later one, of which it has no row.
		s.seq.mu.Lock()
		t.day = dayOf(s.seq.time)
		s.seq.mu.Unlock()
		t.arrived, t.err = arrivalsAt(s.db, t.day, []byte(t.name))
		t.spilled = t.arrived != Arrivals{}
	})
	return t.err
}

// arrivalsAt reads the row of a day. Without a row the arrivals are zero.
func arrivalsAt(rd reader, day uint32, name []byte) (a Arrivals, err error) {
	err = get(rd, dayKey(nil, day, name), func(v []byte) (err error) {
		a, err = parseArrivals(v)
		return err
	})
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	return a, err
}

// totalChange is a total that a batch holds, and what it adds to it, arrivals aside.
type totalChange struct {
	*heldTotal
	addRepos, addRecords int64
}

// arrival is what an entry of the log adds to the arrivals of a collection.
type arrival struct {
	of *heldTotal
	Arrivals
}

// sequenceTotals gives the totals that a batch changes their values, and adds the rows. The entries
// have their times. The sequencer's mutex is held.
func (s *Store) sequenceTotals(b *Batch) error {
	c := &b.census
	if len(c.totals) == 0 && c.all == (totalChange{}) {
		return nil
	}
	all := s.totals.all
	for i := range b.entries {
		e := &b.entries[i]
		day := dayOf(e.Time)
		for j := range e.arrivals {
			a := &e.arrivals[j]
			s.enterDay(b, a.of, day)
			s.enterDay(b, all, day)
			a.of.arrived.add(a.Arrivals)
			all.arrived.add(a.Arrivals)
		}
	}
	all.repos += c.all.addRepos
	all.records += c.all.addRecords
	for _, t := range c.totals {
		t.repos += t.addRepos
		t.records += t.addRecords
		all.records += t.addRecords
		if err := s.storeTotal(b, t.heldTotal); err != nil {
			return err
		}
	}
	return errors.Join(s.storeTotal(b, all), b.err)
}

// enterDay gives the arrivals of an earlier day their row.
func (s *Store) enterDay(b *Batch, t *heldTotal, day uint32) {
	if t.day == day {
		return
	}
	s.spill(b, t)
	if q := &s.totals; t == q.all && t.spilled {
		q.days = append(q.days, t.day)
		if n := len(q.days) - DaysKept; n > 0 {
			b.fail(b.b.DeleteRange(dayKey(nil, 0, nil), dayKey(nil, q.days[n], nil), nil))
			q.days = slices.Delete(q.days, 0, n)
		}
	}
	t.day, t.arrived, t.spilled = day, Arrivals{}, false
}

// spill writes the arrivals of the day of a total as a row, unless they have one, or are too old.
func (s *Store) spill(b *Batch, t *heldTotal) {
	days := s.totals.days
	if t.arrived == (Arrivals{}) || len(days) == DaysKept && t.day < days[0] {
		return
	}
	b.value = appendArrivalsRow(b.value[:0], t.arrived)
	b.set(dayKey(b.key[:0], t.day, []byte(t.name)), b.value)
	t.spilled = true
}

// storeTotal adds the row of a total.
func (s *Store) storeTotal(b *Batch, t *heldTotal) error {
	if t.repos < 0 || t.records < 0 {
		return fmt.Errorf("total of collection %q would be %d records of %d repositories: %w",
			t.name, t.records, t.repos, ErrCorrupt)
	}
	key := totalKey(b.key[:0], []byte(t.name))
	if t.repos == 0 && t.records == 0 && t.name != everything {
		if t.stored {
			b.delete(key)
			b.deltas[countCollectionNames]--
		}
		t.stored = false
		s.spill(b, t)
		return b.err
	}
	b.value = t.append(b.value[:0])
	b.set(key, b.value)
	if !t.stored && t.name != everything {
		b.deltas[countCollectionNames]++
	}
	t.stored = true
	if t.spilled {
		b.delete(dayKey(b.key[:0], t.day, []byte(t.name)))
		t.spilled = false
	}
	return b.err
}
