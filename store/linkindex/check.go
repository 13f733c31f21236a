package linkindex

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"

	"cistern/store"
)

// reportMax bounds the differences that Check reports one by one.
const reportMax = 100

// Check compares the index with itself, and if it has every event of the log, also with the links
// of every current record. It calls report for the first 100 differences and returns their number.
// compared is false if the index was behind the log, so that records could not be compared. Nothing
// may be written meanwhile.
func (x *Index) Check(
	ctx context.Context, report func(string),
) (differences int, compared bool, err error) {
	return x.CheckWithProgress(ctx, report, func(int64) {})
}

// Nanoseconds of a processor that Check takes. BenchmarkCheck measures them with 100,000 records of
// no link, of one and of four: 2.0, 5.0 to 5.7 and 8.1 µs to compare a record, and 0.5 to 0.57 µs
// for a link in the rows of the index (BENCHMARKS.md). If the records are compared, the first link
// of a record costs a look at its row.
const (
	checkRecordCost    = 2000
	checkFirstLinkCost = 3300
	checkLaterLinkCost = 900
	checkLinkCost      = 540
)

// checkTellEvery is how many rows lie between two reports of progress.
const checkTellEvery = 256

// CheckWork returns how much work Check is, in the unit of store.CheckProgress.
func (x *Index) CheckWork() int64 {
	x.mu.Lock()
	st := x.state
	x.mu.Unlock()
	links := max(st.Links, 0)
	work := links * checkLinkCost
	if x.complete(&st) {
		records := x.opts.Store.Counts()["records"]
		first := min(links, records) // how many records have links is not counted
		work += records*checkRecordCost + first*checkFirstLinkCost + (links-first)*checkLaterLinkCost
	}
	return work
}

// complete reports whether the index has all that the store has.
func (x *Index) complete(st *state) bool {
	return !st.building() && st.Epoch == x.opts.Store.Epoch() && st.Through == x.opts.Store.Head()
}

// CheckWithProgress is like Check. It calls progress from time to time with the part of CheckWork
// that is done.
func (x *Index) CheckWithProgress(
	ctx context.Context, report func(string), progress func(done int64),
) (differences int, compared bool, err error) {
	c := checker{x: x, ctx: ctx, report: report, progress: progress, seed: maphash.MakeSeed()}
	x.mu.Lock()
	st := x.state
	x.mu.Unlock()
	compared = x.complete(&st)
	if compared {
		err = c.currentRecords()
	}
	for _, step := range []func() error{c.rowsOfRecords, c.rowsOfAccounts, c.rowsOfTargets} {
		if err == nil {
			err = step()
		}
	}
	if err != nil {
		return c.found, compared, fmt.Errorf("check the index of links: %w", err)
	}
	if compared && c.wanted != c.records {
		c.differ("%d records with links are stored, the index has %d", c.wanted, c.records)
	}
	if c.fromRecords != c.fromLinks || c.fromRecords.n != uint64(max(st.Links, 0)) {
		c.differ("links by record %+v, links by target %+v, counted %d", c.fromRecords, c.fromLinks,
			st.Links)
	}
	if c.byRecords != c.byAccounts {
		c.differ("links by record %+v, links by account %+v", c.byRecords, c.byAccounts)
	}
	if c.distinct != c.counted {
		c.differ("accounts of all targets by rows %+v, by counts %+v", c.distinct, c.counted)
	}
	return c.found, compared, nil
}

// checker is one call of Check.
type checker struct {
	x      *Index
	ctx    context.Context
	report func(string)
	found  int

	progress func(done int64)
	worked   int64
	rows     int

	wanted, records        int64   // records with links: stored, and in the index
	fromRecords, fromLinks summary // of group, arrival, account, rkey
	byRecords, byAccounts  summary // of group, arrival, account
	distinct, counted      summary // of group, once for each account: by rows, and by counts
	seed                   maphash.Seed
	buf                    []byte
}

// summary tells sets of rows apart, in whatever order they come.
type summary struct{ n, sum uint64 }

// spent adds the work for a row.
func (c *checker) spent(work int64) {
	c.worked += work
	if c.rows++; c.rows%checkTellEvery == 0 {
		c.progress(c.worked)
	}
}

func (c *checker) add(s *summary, row []byte) { c.addTimes(s, row, 1) }

func (c *checker) addTimes(s *summary, row []byte, n int64) {
	s.n += uint64(n)
	s.sum += uint64(n) * maphash.Bytes(c.seed, row)
}

func (c *checker) differ(format string, args ...any) {
	if c.found++; c.found <= reportMax {
		c.report("backlinks: " + fmt.Sprintf(format, args...))
	}
}

// currentRecords compares the links of every current record with its row.
func (c *checker) currentRecords() error {
	s := c.x.opts.Store
	p := s.BeginSnapshot(everything())
	r := c.x.newRun() // for its extraction; it is not written
	var at store.RecordPosition
	for ended := false; !ended; {
		var failed, err error
		at, ended, err = s.ReadRecords(c.ctx, p, at, pageRows,
			func(e *store.Event, _ store.RecordPosition) bool {
				failed = c.current(r, e)
				return failed == nil
			})
		if err := errors.Join(failed, err); err != nil {
			return err
		}
	}
	return nil
}

// current compares one record.
func (c *checker) current(r *run, e *store.Event) error {
	if err := r.extract(e.Collection, e.Record); err != nil {
		return err
	}
	work := int64(checkRecordCost)
	if n := int64(len(r.groups)); n > 0 {
		c.wanted++
		work += checkFirstLinkCost + (n-1)*checkLaterLinkCost
	}
	c.spent(work)
	account, known, err := c.x.accountNumber(e.DID)
	if err != nil {
		return err
	}
	collection, named, err := c.x.sourceNumber(Source{Collection: string(e.Collection)})
	if err != nil {
		return err
	}
	r.old = r.old[:0]
	if known && named {
		_, err = c.x.get(recordKey(nil, account, collection, e.Rkey), func(v []byte) (err error) {
			_, r.old, err = parseLinks(v, r.old)
			return err
		})
	}
	if err == nil && !slices.Equal(r.old, r.groups) {
		c.differ("%s/%s/%s has %d links, the index has %d, or others", e.DID, e.Collection, e.Rkey,
			len(r.groups), len(r.old))
	}
	return err
}

func (c *checker) rowsOfRecords() error {
	var groups []group
	last := uint32(0)
	return c.scan(spaceRecord, func(key, value []byte) error {
		c.records++
		account, _, rkey, err := parseRecordKey(key)
		if err != nil {
			return err
		}
		if account != last {
			last = account
			if err := c.accountName(account); err != nil {
				return err
			}
		}
		var arrival uint64
		if arrival, groups, err = parseLinks(value, groups[:0]); err != nil {
			return err
		}
		for _, g := range groups {
			c.spent(checkLinkCost / 3) // it is met again by account and by target
			if _, ok, err := c.x.sourceName(g.source); err != nil {
				return err
			} else if !ok {
				c.differ("source %d has no name", g.source)
			}
			c.buf = distinctKey(c.buf, g, account, arrival)
			c.add(&c.byRecords, c.buf)
			c.buf = append(c.buf, rkey...)
			c.add(&c.fromRecords, c.buf)
		}
		return nil
	})
}

// accountName checks that an account and its number have each other's rows.
func (c *checker) accountName(account uint32) error {
	did, err := c.x.accountDID(account)
	if err != nil {
		return err
	}
	n, ok, err := c.x.accountNumber(did)
	if did == "" || !ok || n != account {
		c.differ("account %d is %q, whose number is %d", account, did, n)
	}
	return err
}

func (c *checker) rowsOfAccounts() error {
	var lastGroup group
	lastAccount := uint32(0)
	return c.scan(spaceDistinct, func(key, _ []byte) error {
		c.spent(checkLinkCost / 3)
		account, g, arrival, err := parseDistinct(key)
		if err != nil {
			return err
		}
		c.buf = distinctKey(c.buf, g, account, arrival)
		c.add(&c.byAccounts, c.buf)
		if account != lastAccount || g != lastGroup {
			lastAccount, lastGroup = account, g
			c.addTimes(&c.distinct, g.append(c.buf[:0]), 1)
		}
		return nil
	})
}

// rowsOfTargets sums up the links, and compares the count of each group with them.
func (c *checker) rowsOfTargets() error {
	counted := map[group]int64{} // records of the groups of a target whose links are still to come
	var at group
	found := int64(0) // links of at
	links := func() {
		if found == 0 {
			return
		}
		if want := counted[at]; want != found {
			c.differ("group %x is counted with %d links and has %d", at, want, found)
		}
		delete(counted, at)
		found = 0
	}
	target := func() {
		links()
		for g, want := range counted {
			if want != 0 {
				c.differ("group %x is counted with %d links and has none", g, want)
			}
		}
		clear(counted)
	}
	err := c.scan(spaceTarget, func(key, value []byte) error {
		g, kind, arrival, err := parseTargetKey(key)
		switch {
		case err != nil:
			return err
		case !g.sameTarget(at):
			target()
		case g != at && kind == kindLink:
			links()
		}
		at = g
		if kind == kindCount {
			want, err := parseCounts(value)
			counted[g] = want.Records
			c.addTimes(&c.counted, g.append(c.buf[:0]), want.DIDs)
			return err
		}
		found++
		c.spent(checkLinkCost / 3)
		account, rkey, err := parseLink(value)
		c.buf = append(distinctKey(c.buf, g, account, arrival), rkey...)
		c.add(&c.fromLinks, c.buf)
		return err
	})
	target()
	return err
}

// scan calls fn for each row of a keyspace.
func (c *checker) scan(space byte, fn func(key, value []byte) error) error {
	n := 0
	return c.x.scan([]byte{space}, []byte{space + 1}, func(key, value []byte) (bool, error) {
		if n++; n%1024 == 0 && c.ctx.Err() != nil {
			return false, c.ctx.Err()
		}
		return true, fn(key, value)
	})
}
