package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"cistern/ingest/repo"
)

// emptyRecord takes the place of a body that is lost, so that readers of the log can go on. It does
// not have the CID of the record, which Repair deletes next.
var emptyRecord = []byte{0xa0}

// Repair makes one step towards a repository without differences, and returns what has been done.
// The first steps give rows that derive from others their right values. Then records without their
// body are deleted, with events, the row is torn, and the repository is queued for a new copy, whose
// difference brings the records back. The caller examines the repository again, in one view, until
// nothing differs or the result is RepairNone.
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
		r.Records, r.Shelved, r.Hidden = c.held.Records, c.held.Shelved, c.held.Hidden
		r.Collections, r.Blocks = c.held.Collections, c.held.Blocks
		r.NextBlock = max(r.NextBlock, c.held.NextBlock)
	}
	for _, n := range c.collections {
		key := collectionKey(b.key[:0], []byte(n.collection), o)
		if n.n == 0 {
			b.delete(key)
		} else {
			b.set(key, binary.AppendUvarint(nil, uint64(n.n)))
		}
		b.counts = append(b.counts, n)
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

// compareCounters compares the counters that derive from rows of repositories with the sum of these
// rows, both as of one moment, and calls report for each difference. It calls pause after every few
// thousand rows, during which its view stays open.
func (s *Store) compareCounters(pause func() error, report func(i count, says, sum int64)) error {
	s.seq.mu.Lock()
	says := s.seq.counts
	v, err := s.view()
	s.seq.mu.Unlock()
	if err != nil {
		return err
	}
	var sum counts
	n := 0
	err = scan(v, []byte{spaceRepo}, spaceEnd(spaceRepo), func(key, value []byte) (bool, error) {
		if n++; n%examinePage == 0 {
			if err := pause(); err != nil {
				return false, err
			}
		}
		var r Repo
		if err := s.codec.decode(value, &r); err != nil {
			return false, fmt.Errorf("repository %x: %w", key, err)
		}
		sum.add(r.rowState(), 1)
		sum[countCollections] += int64(r.Collections)
		return true, nil
	})
	if err = errors.Join(err, v.close()); err != nil {
		return err
	}
	for i := range count(countMax) {
		// The log and the buffers have counters of their own rows.
		if i != countEvents && i != countBuffered && says[i] != sum[i] {
			report(i, says[i], sum[i])
		}
	}
	return nil
}

// RepairCounters compares the counters of repositories, of what they hold and of their states with
// the rows of all repositories, as of one moment, and corrects them. It returns the differences.
// Writes go on meanwhile: each moves a counter by the same amount as its row. pause is called after
// every few thousand rows, within one view of the store.
func (s *Store) RepairCounters(pause func() error) (differences []string, err error) {
	b := s.NewBatch()
	err = s.compareCounters(pause, func(i count, says, sum int64) {
		differences = append(differences,
			fmt.Sprintf("counter %s is %d, the rows make %d", countNames[i], says, sum))
		b.deltas[i] += sum - says
	})
	if err != nil || len(differences) == 0 {
		b.Discard()
		return nil, err
	}
	return differences, b.CommitSync()
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
