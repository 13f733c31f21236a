package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"cistern/ingest/repo"

	"github.com/cockroachdb/pebble/v2"
)

// emptyRecord takes the place of a body that is lost, so that readers of the log can go on. It does
// not have the CID of the record, which Repair deletes next.
var emptyRecord = []byte{0xa0}

// Repair makes one step towards a repository without differences, and returns what has been done.
// The first steps give rows that derive from others their right values. Then records without their
// body are deleted, with events, the row is torn, and the repository is queued for a new copy,
// whose difference brings the records back. The caller examines the repository again, in one view,
// until nothing differs or the result is RepairNone.
//
// If the repository has changed since it was examined, nothing is written, and the error is
// ErrStale. wait returns when the step is durable.
func (s *Store) Repair(x *Examination) (did Repaired, wait func() error, err error) {
	wait, err = s.UpdateRepo(x.Repo.DID, func(b *Batch, row *Repo) error {
		same := false
		err := get(s.db, repoKey(nil, row.DID), func(v []byte) error {
			same = bytes.Equal(v, x.raw)
			return nil
		})
		switch {
		case errors.Is(err, ErrNotFound) || err == nil && !same:
			return ErrStale
		case err != nil:
			return err
		case x.correct.any():
			did = RepairCorrected
			if err := correctRows(b, row, &x.correct); err != nil {
				return err
			}
		case !x.refetch || row.Tracked == Untracked:
			return nil
		default:
			if did, err = tear(b, row, x.damaged); err != nil {
				return err
			}
		}
		b.PutRepo(row)
		return b.err
	})
	if err != nil {
		return RepairNone, nil, fmt.Errorf("repair %s: %w", x.Repo.DID, err)
	}
	return did, wait, nil
}

// Repaired is what a step of Repair has done.
type Repaired uint8

const (
	// RepairNone: nothing. The repository is not followed, so that no other copy can be fetched.
	RepairNone Repaired = iota
	// RepairCorrected: rows that derive from others were corrected.
	RepairCorrected
	// RepairTorn: the next fetch of the repository, which has its time already, completes it.
	RepairTorn
	// RepairQueued: the repository is pending, for a fetch that completes it.
	RepairQueued
)

// correctRows writes the corrections of an examination. Apply must not be called in the same batch.
func correctRows(b *Batch, r *Repo, c *corrections) error {
	o := r.Ordinal
	if c.counted || len(c.lost)+len(c.astray) > 0 {
		// Whether the counters have counted what the row says, or what it has, is unknown. Too high a
		// counter is harmless until RepairCounters; a negative one would end the store.
		b.deltas[countCollections] += max(0, int64(c.held.Collections)-int64(r.Collections))
		r.loaded.records = min(r.loaded.records, c.held.Records)
		r.loaded.blocks = min(r.loaded.blocks, c.held.Blocks)
		r.loaded.shows = r.loaded.shows && c.held.Collections > 0
		r.Records, r.Shelved, r.Hidden = c.held.Records, c.held.Shelved, c.held.Hidden
		r.Collections, r.Blocks = c.held.Collections, c.held.Blocks
		r.NextBlock = max(r.NextBlock, c.held.NextBlock)
	}
	for _, n := range c.collections {
		if err := b.census.correct(n.collectionOf, n.n); err != nil {
			return err
		}
	}
	for block, n := range c.refs {
		key := numberedKey(b.key[:0], spaceRef, o, block)
		if n < 2 {
			b.delete(key)
		} else {
			b.set(key, binary.AppendUvarint(nil, uint64(n)))
		}
	}
	for _, block := range c.orphans {
		b.superseded = append(b.superseded, supersededBlock{len(b.entries), o, block})
	}
	for _, key := range c.freed {
		b.delete(key)
	}
	slices.Sort(c.lost) // records that share a lost block name it several times
	for _, block := range slices.Compact(c.lost) {
		b.set(numberedKey(b.key[:0], spaceBlock, o, block), emptyRecord)
		r.Blocks++
	}
	for _, path := range c.astray {
		if err := settleAstray(b, r, path); err != nil {
			return err
		}
	}
	return b.err
}

// settleAstray gives a record a block of its own.
func settleAstray(b *Batch, r *Repo, path []byte) error {
	key := recordKey(nil, r.Ordinal, path)
	return get(b.s.db, key, func(v []byte) error {
		row, err := parseRecordRow(v)
		if err != nil {
			return err
		}
		row.block = r.NextBlock
		r.NextBlock++
		r.Blocks++
		b.set(numberedKey(b.key[:0], spaceBlock, r.Ordinal, row.block), emptyRecord)
		b.set(key, append(row.append(nil), row.rev...))
		return nil
	})
}

// tear deletes records that cannot be shown, and leaves the repository to a new copy. A fetch in
// flight has compared its copy with the rows of before: it becomes void.
func tear(b *Batch, r *Repo, damaged [][]byte) (Repaired, error) {
	r.Torn, r.Recheck = true, false
	ops := make([]Op, len(damaged))
	for i, path := range damaged {
		ops[i] = Op{Path: path, CID: repo.CID{}}
	}
	if len(ops) > 0 {
		if err := b.Apply(r, false, r.Rev, ops); err != nil {
			return RepairNone, err
		}
	}
	switch r.State {
	case StatePending, StateSynced, StateDraining:
		b.Enqueue(r, PriorityRetry)
		return RepairQueued, nil
	}
	return RepairTorn, nil
}

// counterDifferences are the differences of counters and totals: what to add to them.
type counterDifferences struct {
	texts  []string
	counts counts
	totals []CollectionTotal // what to add to each
	all    CollectionTotal   // and to that of everything
}

// totalsRepaired bounds the totals that one RepairCounters corrects. It is called again and again.
const totalsRepaired = 1024

// add notes a difference.
func (d *counterDifferences) add(format string, args ...any) {
	d.texts = append(d.texts, fmt.Sprintf(format, args...))
}

// total compares a total with the sum of rows.
func (d *counterDifferences) total(name string, says total, sum CollectionTotal) {
	if says.repos == sum.Repos && says.records == sum.Records || len(d.totals) == totalsRepaired {
		return
	}
	d.add("total of collection %q is %d records of %d repositories, the rows make %d of %d",
		name, says.records, says.repos, sum.Records, sum.Repos)
	d.totals = append(d.totals, CollectionTotal{name, sum.Repos - says.repos,
		sum.Records - says.records})
}

// compareCounters compares the counters and totals that derive from rows of repositories and of
// collections with the sum of these rows, both as of one moment. It calls pause after every few
// thousand rows, during which its view stays open.
func (s *Store) compareCounters(pause func() error) (d counterDifferences, err error) {
	s.seq.mu.Lock()
	says := s.seq.counts
	v, err := s.view()
	s.seq.mu.Unlock()
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, v.close()) }()
	n := 0
	row := func() error {
		if n++; n%examinePage == 0 {
			return pause()
		}
		return nil
	}
	var sum counts
	visible, showing := ordinalSet{}, int64(0)
	err = scan(v, []byte{spaceRepo}, spaceEnd(spaceRepo), func(key, value []byte) (bool, error) {
		if err := row(); err != nil {
			return false, err
		}
		var r Repo
		if err := s.codec.decode(value, &r); err != nil {
			return false, fmt.Errorf("repository %x: %w", key, err)
		}
		now := r.rowState()
		sum.add(now, 1)
		sum[countCollections] += int64(r.Collections)
		showing += now.showing()
		if o := now.visible(); o != 0 {
			visible.add(o)
		}
		return true, nil
	})
	if err == nil {
		sum[countCollectionNames], err = compareTotals(v, visible, row, &d)
	}
	if err != nil {
		return d, err
	}
	all, _, err := totalAt(v, everything)
	d.all.Repos, d.all.Records = showing-all.repos, d.all.Records-all.records
	if d.all.Repos != 0 || d.all.Records != 0 {
		d.add("total of everything is %d records of %d repositories, the rows make %d of %d",
			all.records, all.repos, all.records+d.all.Records, showing)
	}
	for i := range count(countMax) {
		// The log and the buffers have counters of their own rows.
		if i != countEvents && i != countBuffered && says[i] != sum[i] {
			d.add("counter %s is %d, the rows make %d", countNames[i], says[i], sum[i])
			d.counts[i] = sum[i] - says[i]
		}
	}
	return d, err
}

// compareTotals compares the totals of collections with the rows of those ordinals that are
// visible, and returns how many totals there are. Both are in order of name.
func compareTotals(
	rd reader, visible ordinalSet, row func() error, d *counterDifferences,
) (rows int64, err error) {
	it, err := rd.NewIter(&pebble.IterOptions{LowerBound: append(totalKey(nil, nil), 0),
		UpperBound: spaceEnd(spaceTotal)})
	if err != nil {
		return 0, engineError(err)
	}
	defer func() { err = errors.Join(err, engineError(it.Close())) }()
	var name string // of the total at it
	var says total
	// read reads the total at it; ok is whether there is one.
	read := func(ok bool) (bool, error) {
		if !ok {
			return false, engineError(it.Error())
		}
		rows++
		key, err := parseTotalKey(it.Key())
		if err == nil {
			name = string(key)
			says, err = parseTotal(it.Value())
		}
		return true, err
	}
	ok, err := read(it.First())
	if err != nil {
		return rows, err
	}
	// pass compares the totals before a name, of which there are no rows. "": all that are left.
	pass := func(to string) error {
		for ok && (to == "" || name < to) && err == nil {
			d.total(name, says, CollectionTotal{})
			ok, err = read(it.Next())
		}
		return err
	}
	err = eachShown(rd, visible, row, func(sum CollectionTotal) error {
		d.all.Records += sum.Records
		if err := pass(sum.Collection); err != nil {
			return err
		}
		if !ok || name != sum.Collection {
			d.total(sum.Collection, total{}, sum)
			return nil
		}
		d.total(name, says, sum)
		ok, err = read(it.Next())
		return err
	})
	return rows, errors.Join(err, pass(""))
}

// RepairCounters compares the counters of repositories, of what they hold and of their states, and
// the totals of collections, with the rows of all repositories, as of one moment, and corrects
// them. It returns the differences. Arrivals are not compared: only the log has them. Writes go on
// meanwhile: each moves a counter by the same amount as its row. pause is called after every few
// thousand rows, within one view of the store.
func (s *Store) RepairCounters(pause func() error) (differences []string, err error) {
	d, err := s.compareCounters(pause)
	if err != nil || len(d.texts) == 0 {
		return nil, err
	}
	b := s.NewBatch()
	b.deltas = d.counts
	c := &b.census
	c.all.addRepos, c.all.addRecords = d.all.Repos, d.all.Records
	for _, t := range d.totals {
		change := c.total(t.Collection)
		change.addRepos, change.addRecords = t.Repos, t.Records
		c.all.addRecords -= t.Records // which each brings with it
	}
	return d.texts, b.CommitSync()
}

// VerifyCursor is the place of a walk that verifies all repositories, and what it has found so far.
type VerifyCursor struct {
	After string `cbor:"1,keyasint,omitempty"` // last DID that was verified; "" at the start

	Repos       int64 `cbor:"2,keyasint,omitempty"` // rows passed, with or without a copy
	Records     int64 `cbor:"3,keyasint,omitempty"`
	Unproven    int64 `cbor:"4,keyasint,omitempty"` // copies whose tree could not be compared
	Damaged     int64 `cbor:"5,keyasint,omitempty"` // copies with differences
	Differences int64 `cbor:"6,keyasint,omitempty"`
	// the first difference, bounded to ErrorBytesMax
	First string `cbor:"7,keyasint,omitempty"`
}

// PutVerifyCursor writes the place of the walk.
func (b *control) PutVerifyCursor(c VerifyCursor) {
	b.put(metaKey(metaVerify), c)
}

// DropVerifyCursor ends the walk.
func (b *control) DropVerifyCursor() { b.delete(metaKey(metaVerify)) }

// VerifyCursor returns the place of the walk as last written, zero while no walk is under way.
func (s *Store) VerifyCursor() (c VerifyCursor, err error) {
	_, err = s.metaRow(s.db, metaVerify, &c)
	return c, err
}
