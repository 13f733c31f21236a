package store

import (
	"bytes"
	"errors"
	"maps"
	"slices"
)

// eachShown calls fn for each collection of which an ordinal of a set has records, in order of
// name, with the sum over the set, and row for each row before.
func eachShown(
	rd reader, visible ordinalSet, row func() error, fn func(CollectionTotal) error,
) error {
	var c CollectionTotal
	var name []byte
	end := func() error {
		if c.Repos == 0 {
			return nil
		}
		c.Collection = string(name)
		return fn(c)
	}
	err := scan(rd, []byte{spaceCollection}, spaceEnd(spaceCollection),
		func(key, value []byte) (bool, error) {
			if err := row(); err != nil {
				return false, err
			}
			collection, o, err := parseCollectionKey(key)
			if err != nil {
				return false, err
			}
			if !bytes.Equal(collection, name) {
				if err := end(); err != nil {
					return false, err
				}
				name, c = append(name[:0], collection...), CollectionTotal{}
			}
			n, err := parseCountValue(value)
			if err == nil && visible.has(o) {
				c.Repos++
				c.Records += n
			}
			return true, err
		})
	if err != nil {
		return err
	}
	return end()
}

// totalAt reads the row of a total; ok is false without a row.
func totalAt(rd reader, name string) (t total, ok bool, err error) {
	err = get(rd, totalKey(nil, []byte(name)), func(v []byte) (err error) {
		t, err = parseTotal(v)
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return t, false, nil
	}
	return t, err == nil, err
}

// totalChecker compares totals with the rows of collections, and arrivals with the log.
type totalChecker struct {
	*checker
	days   []uint32            // that are kept, besides the newest
	sums   map[uint32]Arrivals // over all collections, by day
	newest uint32              // day of the newest event

	day     uint32              // that is being gathered from the log
	arrived map[string]Arrivals // of it
	partial bool                // the log lacks some of its events
	lost    bool                // of some of its events the collection is not known any more
}

func checkTotals(c *checker) error {
	t := totalChecker{checker: c, sums: map[uint32]Arrivals{}, arrived: map[string]Arrivals{},
		newest: dayOf(c.time)}
	for _, step := range []func() error{t.shown, t.dayRows, t.totalRows,
		t.compareSums, t.memory, t.log} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// shown compares the totals with the rows of collections.
func (t *totalChecker) shown() error {
	records, names := int64(0), int64(0)
	row := func() error {
		t.spent(checkCollectionCost)
		return t.ctx.Err()
	}
	err := eachShown(t.r, t.visible, row, func(want CollectionTotal) error {
		records += want.Records
		names++
		got, _, err := totalAt(t.r, want.Collection)
		if got.repos != want.Repos || got.records != want.Records {
			t.report("total of %s: %d records of %d repositories, the rows make %d of %d", want.Collection,
				got.records, got.repos, want.Records, want.Repos)
		}
		return err
	})
	if err != nil {
		return err
	}
	t.got[countCollectionNames] = names
	all, _, err := totalAt(t.r, everything)
	if all.repos != t.showing || all.records != records {
		t.report("total of everything: %d records of %d repositories, the rows make %d of %d",
			all.records, all.repos, records, t.showing)
	}
	return err
}

func (t *totalChecker) dayRows() error {
	return t.space(spaceDay, func(key, value []byte) error {
		day, name, err := parseDayKey(key)
		if err != nil {
			return err
		}
		a, err := parseArrivals(value)
		if err != nil {
			return err
		}
		if day > t.newest {
			t.report("arrivals of %q: of day %d, the newest event is of %d", name, day, t.newest)
		}
		if len(name) == 0 {
			t.days = append(t.days, day)
			return nil
		}
		sum := t.sums[day]
		sum.add(a)
		t.sums[day] = sum
		if now, ok, err := totalAt(t.r, string(name)); err != nil || ok && now.day == day {
			t.report("arrivals of %q: day %d has two rows (%v)", name, day, err)
		}
		return nil
	})
}

func (t *totalChecker) totalRows() error {
	n := int64(0)
	err := t.space(spaceTotal, func(key, value []byte) error {
		name, err := parseTotalKey(key)
		if err != nil {
			return err
		}
		now, err := parseTotal(value)
		if err != nil || len(name) == 0 {
			return err
		}
		n++
		sum := t.sums[now.day]
		sum.add(now.arrived)
		t.sums[now.day] = sum
		return nil
	})
	if n != t.got[countCollectionNames] {
		t.report("totals: %d, the rows make %d", n, t.got[countCollectionNames])
	}
	return err
}

// kept reports whether the arrivals of a day are kept.
func (t *totalChecker) kept(day uint32) bool {
	return len(t.days) < DaysKept || day >= t.days[0]
}

// compareSums compares the sums over all collections with the arrivals of everything.
func (t *totalChecker) compareSums() error {
	for _, day := range slices.Sorted(maps.Keys(t.sums)) {
		if !t.kept(day) {
			continue
		}
		all, err := t.arrivals(everything, day)
		if err != nil {
			return err
		}
		if all != t.sums[day] {
			t.report("arrivals of day %d: %+v, the collections make %+v", day, all, t.sums[day])
		}
	}
	return nil
}

// arrivals returns the arrivals of a day as they are stored.
func (t *totalChecker) arrivals(name string, day uint32) (Arrivals, error) {
	now, ok, err := totalAt(t.r, name)
	if err != nil || ok && now.day == day {
		return now.arrived, err
	}
	return arrivalsAt(t.r, day, []byte(name))
}

// memory compares the totals in memory with the rows.
func (t *totalChecker) memory() error {
	if !slices.Equal(t.days, t.daysWere) {
		t.report("days with arrivals: %d, in memory %d", t.days, t.daysWere)
	}
	for name, says := range t.totalsWere {
		got, _, err := totalAt(t.r, name)
		if err != nil {
			return err
		}
		if got.repos != says.repos || got.records != says.records {
			t.report("cached total of %q: is %+v instead of %+v", name, got, says)
		}
		if a, err := t.arrivals(name, says.day); err != nil || a != says.arrived {
			t.report("cached arrivals of %q on day %d: are %+v instead of %+v (%v)",
				name, says.day, a, says.arrived, err)
		}
	}
	return nil
}

// log compares the arrivals with the log, as far back as it goes.
func (t *totalChecker) log() error {
	t.partial = t.tail > 1
	err := t.s.eachEntry(t.r, t.tail, t.next, func(id uint64, e *entryV1) error {
		if day := dayOf(e.Time); day != t.day {
			if err := t.endDay(); err != nil {
				return err
			}
			t.partial = t.partial && t.day == 0
			t.day = day
		}
		t.spent(checkTotalEntryCost + int64(e.ids())*checkTotalCost)
		return errors.Join(t.entry(id, e), t.ctx.Err())
	})
	if err != nil {
		return err
	}
	return t.endDay()
}

func (t *totalChecker) entry(id uint64, e *entryV1) error {
	add := func(name string, a Arrivals) {
		sum := t.arrived[name]
		sum.add(a)
		t.arrived[name] = sum
	}
	switch e.Kind {
	case entryCommit:
		for _, op := range e.Ops {
			collection, _, _ := bytes.Cut(op.Path, []byte{'/'})
			a := map[Action]Arrivals{Create: {Created: 1}, Update: {Updated: 1},
				Delete: {Deleted: 1}}[op.Action]
			add(string(collection), a)
			add(everything, a)
		}
	case entryImport:
		add(everything, Arrivals{Created: uint64(e.Count)})
		n := uint64(0)
		_, err := e.eachListed(t.r, id, id, func(_ Kind, collection []byte, _ uint64) error {
			n++
			add(string(collection), Arrivals{Created: 1})
			return nil
		})
		t.lost = t.lost || n < uint64(e.Count)
		return err
	}
	return nil
}

// endDay compares the arrivals of the day that was gathered.
func (t *totalChecker) endDay() error {
	for name, want := range t.arrived {
		got, err := t.arrivals(name, t.day)
		if err != nil {
			return err
		}
		more := got.Created >= want.Created && got.Updated >= want.Updated && got.Deleted >= want.Deleted
		exact := !t.partial && (!t.lost || name == everything)
		if got != want && (exact || !more) && t.kept(t.day) {
			t.report("arrivals of %q on day %d: %+v, the log has %+v", name, t.day, got, want)
		}
	}
	clear(t.arrived)
	t.lost = false
	return nil
}
