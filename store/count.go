package store

import (
	"encoding/binary"
	"fmt"
)

// count is the index of one exact counter. Counters change in the batch that changes what they
// count.
type count uint8

const (
	countRepos count = iota
	countRecords
	countBlocks
	countEvents
	countCollections
	countCollectionNames
	countPending
	countSynced
	countResync
	countGone
	countIdle
	countDraining
	countBuffered
	countBehind
	countLacking
	countReturning
	countRateLimited
	countTransport
	countGeneric
	countMax
)

var countNames = [countMax]string{"repos", "records", "blocks", "events", "collections",
	"collection_names", "pending", "synced", "resync", "gone", "idle", "draining", "buffered",
	"behind", "lacking", "returning", "error_ratelimited", "error_transport", "error_generic"}

// counts holds a value, or a change, for each counter.
type counts [countMax]int64

func stateCount(s State) count {
	switch s {
	case StatePending:
		return countPending
	case StateSynced:
		return countSynced
	case StateResync:
		return countResync
	case StateGone:
		return countGone
	case StateIdle:
		return countIdle
	case StateDraining:
		return countDraining
	}
	// unreachable: every state has a gauge
	panic(fmt.Sprintf("store: no gauge for repository state %d", s))
}

// move changes the gauges by the difference between two versions of a row.
func (c *counts) move(from, to rowState) {
	c.add(from, -1)
	c.add(to, 1)
}

// add counts a row n times.
func (c *counts) add(r rowState, n int64) {
	if !r.exists {
		return
	}
	c[countRepos] += n
	c[stateCount(r.state)] += n
	c[countRecords] += n * r.records
	c[countBlocks] += n * r.blocks
	if r.behind {
		c[countBehind] += n
	}
	if r.lacking {
		c[countLacking] += n
	}
	if r.mark == MarkReturning {
		c[countReturning] += n
	}
	if r.state != StateResync {
		return
	}
	switch r.kind {
	case RateLimited:
		c[countRateLimited] += n
	case Transport:
		c[countTransport] += n
	default:
		c[countGeneric] += n
	}
}

func encodeCount(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

func decodeCount(name string, b []byte) (int64, error) {
	if len(b) != 8 {
		return 0, fmt.Errorf("count %s is %x: %w", name, b, ErrCorrupt)
	}
	return int64(binary.BigEndian.Uint64(b)), nil
}

// Counts returns the exact counters: repos, records that are shown or hidden, blocks, events,
// collections (pairs of repository and collection), collection_names (collections of which an
// account that is not hidden shows a record), buffered (live commits), and gauges of
// repositories by state and error kind, of those known to have a later rev (behind), of those that
// do not yet agree with the filter (lacking), and of active accounts that stay hidden for a while
// because their status changed too often (returning).
func (s *Store) Counts() map[string]int64 {
	s.seq.mu.Lock()
	c := s.seq.counts
	s.seq.mu.Unlock()
	m := make(map[string]int64, countMax)
	for i, n := range c {
		m[countNames[i]] = n
	}
	return m
}
