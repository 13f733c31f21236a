package store

import (
	"bytes"
	"errors"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// CollectionTotal is what readers see of a collection, over all accounts.
type CollectionTotal struct {
	Collection string // "" is the sum over all collections
	Repos      int64  // that show records of it
	Records    int64
}

// Day is what arrived on a UTC day.
type Day struct {
	Begin time.Time
	Arrivals
}

// CollectionTotals returns the collections of which readers see records, in order of name: those
// that begin with a prefix, behind a name. It reads one row for each.
func (s *Store) CollectionTotals(
	prefix, after string, limit int,
) (page []CollectionTotal, err error) {
	lower := append(totalKey(nil, []byte(after)), 0) // also behind the total of everything
	if first := append([]byte{spaceTotal}, prefix...); bytes.Compare(first, lower) > 0 {
		lower = first
	}
	err = s.at(func(rd reader) error {
		it, err := rd.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: spaceEnd(spaceTotal)})
		if err != nil {
			return engineError(err)
		}
		for ok := it.First(); ok && err == nil && len(page) < limit; ok = it.Next() {
			var name []byte
			var t total
			if name, err = parseTotalKey(it.Key()); err != nil || !bytes.HasPrefix(name, []byte(prefix)) {
				break
			}
			if t, err = parseTotal(it.Value()); err == nil {
				page = append(page, CollectionTotal{string(name), t.repos, t.records})
			}
		}
		return errors.Join(err, engineError(it.Close()))
	})
	return page, err
}

// CollectionTotal returns the total of a collection, or of everything if it is "", and what arrived
// on each of the last n days, as of one moment. The last of them is the day of the newest event.
// Days without an arrival are left out. A collection of which readers see nothing has zeros.
func (s *Store) CollectionTotal(
	collection string, n int,
) (c CollectionTotal, days []Day, err error) {
	err = s.at(func(rd reader) error {
		var t total
		err := get(rd, totalKey(nil, []byte(collection)), func(v []byte) (err error) {
			t, err = parseTotal(v)
			return err
		})
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		c = CollectionTotal{collection, t.repos, t.records}
		newest, err := s.metaNumber(rd, metaTime, 0)
		if err != nil {
			return err
		}
		last := dayOf(int64(newest))
		for day := last - min(last, uint32(n)) + 1; day <= last && n > 0; day++ {
			arrived := t.arrived
			if day != t.day {
				if arrived, err = arrivalsAt(rd, day, []byte(collection)); err != nil {
					return err
				}
			}
			if arrived != (Arrivals{}) {
				days = append(days, Day{time.Unix(int64(day)*24*60*60, 0).UTC(), arrived})
			}
		}
		return nil
	})
	return c, days, err
}
