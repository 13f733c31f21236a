package store

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"cistern/filter"
	"cistern/ingest/repo"

	"github.com/cockroachdb/pebble/v2"
)

// Check recomputes everything that is derived from other rows: every counter and gauge, every
// reference count, every collection count, the hash of every block, and the cross-references
// between repositories, owners, queues, the log and its listings. It reports each difference as one
// line. It reads the store at one point in time, and leaves out imports in flight (open leases). An
// error is a failure to read, not a difference.
func (s *Store) Check(
	ctx context.Context, report func(difference string),
) (differences int, err error) {
	return s.CheckWithProgress(ctx, report, func(CheckProgress) {})
}

// CheckWithProgress is like Check. It calls progress from time to time, at least once for each
// step.
func (s *Store) CheckWithProgress(ctx context.Context, report func(difference string),
	progress func(CheckProgress)) (differences int, err error) {
	return s.check(ctx, report, checkWork{progress: progress})
}

func (s *Store) check(ctx context.Context, report func(difference string), work checkWork) (
	differences int, err error) {
	c := checker{s: s, ctx: ctx, checkWork: work, blocks: map[uint32]int64{},
		byHost: map[uint32]HostCounts{}, report: func(format string, args ...any) {
			differences++
			report(fmt.Sprintf(format, args...))
		}}
	c.conditions = conditionCheck{report: c.report, differ: map[string]told{}}
	// No batch may commit between reading the counters and opening the snapshot of the rows.
	s.filters.mu.Lock()
	c.filtersWere = s.filters.kept.Load()
	s.seq.mu.Lock()
	snap := s.db.NewSnapshot()
	c.want, c.next, c.time, c.buffered = s.seq.counts, s.seq.next, s.seq.time, s.buffers.copied()
	c.open = s.seq.postings.copied()
	c.cursors, c.rows, c.counted = maps.Clone(s.seq.cursors), s.caches.rows.copied(),
		s.caches.counts.copied()
	c.hostsSay, c.recent = s.hosts.copied(), s.recent.copied()
	c.totalsWere, c.daysWere, c.visible = s.totals.copied(), slices.Clone(s.totals.days), ordinalSet{}
	s.seq.mu.Unlock()
	s.filters.mu.Unlock()
	c.r = snap
	c.tail, err = s.metaNumber(snap, metaTail, 1)
	if err != nil {
		return 0, errors.Join(err, snap.Close())
	}
	entries, err := estimateEntries(&c)
	if err == nil {
		err = c.take(checkSteps(&c, entries))
	}
	return differences, errors.Join(err, snap.Close())
}

// checkSteps returns the steps of Check in their order, as some need what others gather. entries is
// how many the log has.
func checkSteps(c *checker, entries int64) []checkStep {
	free := func(run func() error) checkStep { return checkStep{run: run} }
	repos, events, collections := c.want[countRepos], c.want[countEvents], c.want[countCollections]
	bodies := c.want[countRecords] + c.want[countBlocks]
	return []checkStep{free(c.leases), free(c.supersededRows),
		free(func() error { return gatherWritten(c) }),
		{"repositories", repos * checkRepoCost, c.repos},
		{"owners", repos * checkOwnerCost, c.owners},
		free(c.queues),
		{"records", repos*checkOwnedCost + bodies*checkRecordCost, c.records},
		free(c.supersededLeft),
		{"leftovers", repos * checkStrayCost, c.strays},
		free(c.garbage), free(c.dropped),
		{"collections", collections * checkCollectionCost, c.collections},
		{"totals", collections*checkCollectionCost + events*checkTotalCost +
			entries*checkTotalEntryCost, func() error { return checkTotals(c) }},
		{"events", events*checkEventCost + entries*checkEntryCost, c.log},
		free(c.conditions.end), free(c.listings),
		{"postings", events*checkPostingCost + entries*checkPostingEntryCost,
			func() error { return checkPostings(c) }},
		free(c.sources), free(c.marks), free(c.subscriptions),
		free(func() error { return checkMaintenance(c) }),
		free(func() error { return checkCopies(c) }),
		free(func() error { return checkSegments(c) }),
		free(c.filters), free(c.buffers), free(c.caches), free(c.newest), free(c.numbers),
		free(c.hosts), free(c.counters)}
}

type checker struct {
	s      *Store
	ctx    context.Context
	r      *pebble.Snapshot
	report func(format string, args ...any)
	checkWork

	want   counts
	got    counts
	next   uint64 // next event id
	time   int64  // time of the newest event
	tail   uint64 // oldest event kept
	leased [][2]Ordinal
	listed int64 // listing rows that entries name

	conditions conditionCheck

	buffered    map[string]buffered // copy of the memory
	cursors     map[string]int64    // copy of the memory
	recent      []eventGroup        // copy of the memory
	open        rowMap              // copy of the memory: rows of the open chunk
	filtersWere *selections         // copy of the memory
	rows        map[string]Repo     // copy of the cache
	counted     map[collectionOf]int64
	totalsWere  map[string]total // copy of the memory
	daysWere    []uint32         // copy of the memory

	visible ordinalSet // ordinals whose records readers see
	showing int64      // repositories of which readers see records

	byHost   map[uint32]HostCounts // from the rows
	hostsSay map[uint32]HostCounts // copy of the memory

	blocks     map[uint32]int64           // of one repository: block → number of record rows
	superseded []waitingBlock             // blocks that wait to be pruned, sorted
	events     map[Ordinal]*writtenBlocks // of an ephemeral store
	row        Repo                       // repository of the current ordinal
}

// each calls fn for each row of a range, and ends early when the context does.
func (c *checker) each(lower, upper []byte, fn func(key, value []byte) error) error {
	n := 0
	return scan(c.r, lower, upper, func(key, value []byte) (bool, error) {
		if n++; n%4096 == 0 && c.ctx.Err() != nil {
			return false, c.ctx.Err()
		}
		return true, fn(key, value)
	})
}

func (c *checker) space(space byte, fn func(key, value []byte) error) error {
	return c.each([]byte{space}, spaceEnd(space), fn)
}

func (c *checker) leases() error {
	return c.space(spaceLease, func(key, value []byte) error {
		first, err := parseOrdinalKey(spaceLease, key)
		if err != nil || len(value) != ordinalBytes {
			return errors.Join(errKey(spaceLease, key), err)
		}
		c.leased = append(c.leased, [2]Ordinal{first, parseOrdinal(value)})
		return nil
	})
}

func (c *checker) inLease(o Ordinal) bool {
	for _, l := range c.leased {
		if o >= l[0] && o < l[1] {
			return true
		}
	}
	return false
}

// waitingBlock is a block that waits to be pruned. It takes 16 bytes, as there may be as many as
// records changed within the retention.
type waitingBlock struct {
	ordinal Ordinal
	block   uint32
	met     bool // the block row was found
}

func compareWaiting(a, b waitingBlock) int {
	return cmp.Or(cmp.Compare(a.ordinal, b.ordinal), cmp.Compare(a.block, b.block))
}

func (c *checker) supersededRows() error {
	err := c.space(spaceSuperseded, func(key, _ []byte) error {
		id, o, block, err := parseSupersededKey(key)
		if err != nil {
			return err
		}
		if id > c.next {
			c.report("superseded block %d of ordinal %d: event %d is not assigned yet", block, o, id)
		}
		c.superseded = append(c.superseded, waitingBlock{ordinal: o, block: block})
		return nil
	})
	slices.SortFunc(c.superseded, compareWaiting)
	c.superseded = slices.CompactFunc(c.superseded, func(a, b waitingBlock) bool {
		if a != b {
			return false
		}
		c.report("block %d of ordinal %d: superseded twice", a.block, a.ordinal)
		return true
	})
	return err
}

// supersededOf returns the superseded rows of a repository.
func (c *checker) supersededOf(o Ordinal) []waitingBlock {
	from, _ := slices.BinarySearchFunc(c.superseded, waitingBlock{ordinal: o}, compareWaiting)
	to, _ := slices.BinarySearchFunc(c.superseded, waitingBlock{ordinal: o + 1}, compareWaiting)
	return c.superseded[from:to]
}

// supersededLeft checks the superseded rows whose block was not found. A wiped repository has no
// blocks, and its rows stay until the tail has passed them. If an event still needs a block, log
// reports it.
func (c *checker) supersededLeft() error {
	for _, at := range c.superseded {
		if at.met {
			continue
		}
		err := get(c.r, ordinalKey(nil, spaceOwner, at.ordinal), func(v []byte) error {
			did, err := parseDID(v)
			if err != nil {
				return err
			}
			if r, err := c.s.loadRepo(c.r, did); err != nil || at.block >= r.Lapsed {
				c.report("block %d of %s: is superseded and missing (%v)", at.block, did, err)
			}
			return nil
		})
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	return nil
}

// repos counts the rows of repositories and checks the other rows that each requires.
func (c *checker) repos() error {
	return c.space(spaceRepo, func(key, value []byte) error {
		c.spent(checkRepoCost)
		did, err := parseRepoKey(key)
		if err != nil {
			return err
		}
		r := Repo{DID: did}
		if err := c.s.codec.decode(value, &r); err != nil {
			return err
		}
		now := r.rowState()
		c.conditions.row(&r)
		c.got.add(now, 1)
		c.countHost(now)
		if o := now.visible(); o != 0 {
			c.visible.add(o)
		}
		c.showing += now.showing()
		c.got[countBlocks] -= r.Blocks // counted again from the block rows
		c.got[countRecords] -= r.Records
		if n := c.buffered[did].commits; (n > 0) != (r.State == StateDraining) &&
			!(n > 0 && r.State == StatePending) {
			c.report("repository %s: is %s with %d buffered commits", did, r.State, n)
		}
		if _, err := c.filtersWere.at(r.Filter); err != nil {
			c.report("repository %s: %v", did, err)
		}
		if now.queued() {
			c.expect(pendingKey(nil, r.Pending), appendDID(nil, did), "pending row of %s", did)
		}
		if now.due != 0 {
			c.expect(retryKey(nil, now.due, did), nil, "retry row of %s", did)
		}
		if r.Ordinal != 0 {
			c.expect(ordinalKey(nil, spaceOwner, r.Ordinal), appendDID(nil, did), "owner row of %s", did)
			commit, err := repo.ParseCommit(r.Commit)
			if err != nil || commit.DID != did || commit.Rev != r.Rev || commit.Data != r.Data {
				c.report("repository %s: rev %s and data %s are not those of its commit (%v)",
					did, r.Rev, r.Data, err)
			}
			if r.Listed == 0 {
				c.report("repository %s: is imported, and its row has no listing", did)
			}
		} else if r.Rev != "" || r.Records != 0 || r.Blocks != 0 || r.Listed != 0 || r.Hidden != 0 ||
			r.Collections != 0 || r.Shelved != 0 || r.Torn || r.TornRev != "" || r.Sweep || r.Lacks {
			c.report("repository %s: has rev %q, %d records and %d blocks but no ordinal",
				did, r.Rev, r.Records, r.Blocks)
		}
		return nil
	})
}

// expect reports a difference if the row under key is absent or has another value.
func (c *checker) expect(key, value []byte, what string, args ...any) {
	err := get(c.r, key, func(v []byte) error {
		if !bytes.Equal(v, value) {
			return fmt.Errorf("is %x instead of %x", v, value)
		}
		return nil
	})
	if err != nil {
		c.report("%s: %v", fmt.Sprintf(what, args...), err)
	}
}

// repo loads a row that another row names, and reports a difference if it is absent.
func (c *checker) repo(did, what string) (Repo, bool) {
	r, err := c.s.loadRepo(c.r, did)
	if err != nil {
		c.report("%s names repository %s: %v", what, did, err)
	}
	return r, err == nil
}

func (c *checker) owners() error {
	return c.space(spaceOwner, func(key, value []byte) error {
		c.spent(checkOwnerCost)
		o, err := parseOrdinalKey(spaceOwner, key)
		if err != nil {
			return err
		}
		did, err := parseDID(value)
		if err != nil {
			return err
		}
		if r, ok := c.repo(did, fmt.Sprintf("owner row %d", o)); ok && r.Ordinal != o {
			c.report("owner row %d names %s, which has ordinal %d", o, did, r.Ordinal)
		}
		return nil
	})
}

func (c *checker) queues() error {
	err := c.space(spacePending, func(key, value []byte) error {
		k, err := parsePendingKey(key)
		if err != nil {
			return err
		}
		did, err := parseDID(value)
		if err != nil {
			return err
		}
		if r, ok := c.repo(did, "pending row"); ok && (r.State != StatePending || r.Pending != k) {
			c.report("pending row %+v names %s, which is %s with %+v", k, did, r.State, r.Pending)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return c.space(spaceRetry, func(key, _ []byte) error {
		due, did, err := parseRetryKey(key)
		if err != nil {
			return err
		}
		if r, ok := c.repo(did, "retry row"); ok && r.Due() != due {
			c.report("retry row at %d names %s, which is %s and due at %d", due, did, r.State, r.Due())
		}
		return nil
	})
}

// records checks the records, refs and blocks of each repository.
func (c *checker) records() error {
	return c.space(spaceOwner, func(key, value []byte) error {
		c.at.Repos++
		c.spent(checkOwnedCost)
		o, err := parseOrdinalKey(spaceOwner, key)
		if err != nil {
			return err
		}
		did, err := parseDID(value)
		if err != nil {
			return err
		}
		var ok bool
		if c.row, ok = c.repo(did, "owner row"); !ok {
			return nil
		}
		clear(c.blocks)
		if err := c.recordRows(o); err != nil {
			return err
		}
		return errors.Join(c.refRows(o), c.blockRows(o))
	})
}

func (c *checker) recordRows(o Ordinal) error {
	var held Repo // counts recomputed from the rows
	counts := map[string]int64{}
	f, err := c.filtersWere.at(c.row.Filter)
	if err != nil {
		f = new(filter.Filter) // repos has reported the error already
	}
	err = c.each(ordinalKey(nil, spaceRecord, o), ordinalKey(nil, spaceRecord, o+1),
		func(key, value []byte) error {
			c.spent(checkRecordCost)
			_, p, err := parseRecordKey(key)
			if err != nil {
				return err
			}
			row, err := parseRecordRow(value)
			if err != nil {
				return err
			}
			at := row.place()
			held.moved(absent, at)
			c.blocks[row.block]++
			if c.s.ephemeral && !c.events[o].has(row.block) {
				c.report("record %s of %s: no entry of the log wrote block %d", p, c.row.DID, row.block)
			}
			collection, _, valid := repo.SplitPath(p)
			// While a sweep runs, and while the row is torn, the stored records may differ from those
			// that the filter wants.
			switch want := c.s.placeOf(f, collection, valid); {
			case valid == row.hidden:
				c.report("record %s of %s: hidden is %v", p, c.row.DID, row.hidden)
			case at != want && !c.row.Sweep && !c.row.Torn:
				c.report("record %s of %s: is %s, by its filter it is %s", p, c.row.DID, at, want)
			}
			if valid && !row.shelved {
				counts[string(collection)]++
			}
			err = get(c.r, numberedKey(nil, spaceBlock, o, row.block), func(body []byte) error {
				if cid := repo.HashCID(body); cid != row.cid {
					c.report("record %s of %s: body hashes to %s, not %s", p, c.row.DID, cid, row.cid)
				}
				return nil
			})
			if errors.Is(err, ErrNotFound) {
				c.report("record %s of %s: block %d is missing", p, c.row.DID, row.block)
				err = nil
			}
			return err
		})
	if held.Records != c.row.Records {
		c.report("repository %s: %d records, its row says %d", c.row.DID, held.Records, c.row.Records)
	}
	if held.Shelved != c.row.Shelved {
		c.report("repository %s: %d shelved records, its row says %d",
			c.row.DID, held.Shelved, c.row.Shelved)
	}
	c.inRow("hidden rows", int(held.Hidden), c.row.Hidden)
	c.inRow("collections", len(counts), c.row.Collections)
	c.got[countRecords] += held.Records
	c.got[countCollections] += int64(len(counts))
	for name, n := range counts {
		err := get(c.r, collectionKey(nil, []byte(name), o), func(v []byte) error {
			if has, err := parseCountValue(v); err != nil || has != n {
				return fmt.Errorf("is %d instead of %d (%v)", has, n, err)
			}
			return nil
		})
		if err != nil {
			c.report("collection count %s of %s: %v", name, c.row.DID, err)
		}
	}
	return err
}

// inRow compares a counted number with the number in the row.
func (c *checker) inRow(what string, n int, says uint32) {
	if int(says) != n {
		c.report("repository %s: %d %s, its row says %d", c.row.DID, n, what, says)
	}
}

func (c *checker) refRows(o Ordinal) error {
	listed := map[uint32]bool{}
	err := c.each(numberedKey(nil, spaceRef, o, 0), ordinalKey(nil, spaceRef, o+1),
		func(key, value []byte) error {
			_, block, err := parseNumberedKey(spaceRef, key)
			if err != nil {
				return err
			}
			n, err := parseCountValue(value)
			listed[block] = true
			if (n != c.blocks[block] || n < 2) && !isLapsing(c, o, block) {
				c.report("block %d of %s: its ref row has %d, %d records refer to it",
					block, c.row.DID, n, c.blocks[block])
			}
			return err
		})
	for block, n := range c.blocks {
		if n > 1 && !listed[block] && !isLapsing(c, o, block) {
			c.report("block %d of %s: %d records refer to it and it has no ref row", block, c.row.DID, n)
		}
	}
	return err
}

func (c *checker) blockRows(o Ordinal) error {
	n, superseded := int64(0), c.supersededOf(o)
	err := c.each(numberedKey(nil, spaceBlock, o, 0), ordinalKey(nil, spaceBlock, o+1),
		func(key, _ []byte) error {
			c.spent(checkRecordCost)
			_, block, err := parseNumberedKey(spaceBlock, key)
			n++
			if block >= c.row.NextBlock {
				c.report("block %d of %s: the next block number is %d", block, c.row.DID, c.row.NextBlock)
			}
			for len(superseded) > 0 && superseded[0].block < block {
				superseded = superseded[1:]
			}
			waits := len(superseded) > 0 && superseded[0].block == block
			if waits {
				superseded[0].met = true
			}
			switch {
			case isLapsing(c, o, block):
			case c.blocks[block] == 0 && !waits:
				c.report("block %d of %s: no record refers to it and it is not superseded", block, c.row.DID)
			case c.blocks[block] > 0 && waits:
				c.report("block %d of %s: is superseded, and %d records refer to it",
					block, c.row.DID, c.blocks[block])
			}
			return err
		})
	if n != c.row.Blocks {
		c.report("repository %s: %d blocks, its row says %d", c.row.DID, n, c.row.Blocks)
	}
	c.got[countBlocks] += n
	return err
}

// strays reports bulk rows of ordinals that have no owner.
func (c *checker) strays() error {
	for _, space := range bulkSpaces {
		it, err := c.r.NewIter(&pebble.IterOptions{LowerBound: []byte{space},
			UpperBound: spaceEnd(space)})
		if err != nil {
			return engineError(err)
		}
		for ok := it.First(); ok && c.ctx.Err() == nil; {
			if len(it.Key()) <= 1+ordinalBytes {
				return errors.Join(errKey(space, it.Key()), it.Close())
			}
			c.spent(checkStrayCost / int64(len(bulkSpaces)))
			o := parseOrdinal(it.Key()[1:])
			err := get(c.r, ordinalKey(nil, spaceOwner, o), func([]byte) error { return nil })
			if err != nil && !c.inLease(o) {
				if waits, gerr := isGarbage(c.r, o); gerr != nil || !waits {
					c.report("%s of ordinal %d: no repository has this ordinal (%v)",
						spaceNames[space], o, errors.Join(err, gerr))
				}
			}
			ok = it.SeekGE(ordinalKey(nil, space, o+1))
		}
		if err := it.Close(); err != nil {
			return engineError(err)
		}
	}
	return c.ctx.Err()
}

// collections reports counts of collections that do not exist; records has compared the others.
func (c *checker) collections() error {
	n := int64(0)
	err := c.space(spaceCollection, func(key, _ []byte) error {
		c.spent(checkCollectionCost)
		n++
		_, _, err := parseCollectionKey(key)
		return err
	})
	if n != c.got[countCollections] {
		c.report("collection rows: %d, the records make %d", n, c.got[countCollections])
	}
	return err
}

func (c *checker) counters() error {
	for i, name := range countNames {
		if c.got[i] != c.want[i] {
			c.report("counter %s is %d, the rows make %d", name, c.want[i], c.got[i])
		}
		err := get(c.r, countKey(name), func(v []byte) error {
			if n, err := decodeCount(name, v); err != nil || n != c.want[i] {
				return fmt.Errorf("is %d on disk and %d in memory (%v)", n, c.want[i], err)
			}
			return nil
		})
		if err != nil && (!errors.Is(err, ErrNotFound) || c.want[i] != 0) {
			c.report("counter %s: %v", name, err)
		}
	}
	return nil
}
