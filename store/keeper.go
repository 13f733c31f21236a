package store

import (
	"maps"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// LogKeeper keeps events in the log for a reader of the process that has not read them yet.
type LogKeeper struct{ s *Store }

// KeepLog returns a keeper that keeps nothing until Keep is called.
func (s *Store) KeepLog() *LogKeeper { return &LogKeeper{s} }

// Keep has the events from next on stay in the log as long as those that a durable subscription has
// not acknowledged. What is below next must not be needed again, also not after a crash.
func (k *LogKeeper) Keep(next uint64) {
	defer k.s.KeepTail()()
	q := &k.s.backlogs
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.keepers == nil {
		q.keepers = map[*LogKeeper]uint64{}
	}
	q.keepers[k] = next
}

// Release ends keeping.
func (k *LogKeeper) Release() {
	q := &k.s.backlogs
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.keepers, k)
}

// keepersFrom returns the lowest event that a keeper keeps, but at least least; ok is false if
// there are no keepers.
func (q *backlogs) keepersFrom(least uint64) (first uint64, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for next := range maps.Values(q.keepers) {
		if next = max(next, least); !ok || next < first {
			first, ok = next, true
		}
	}
	return first, ok
}

// FS returns the file system of the store, for what belongs to it in other files: while the store
// is frozen, operations that change something wait.
func (s *Store) FS() vfs.FS { return s.opts.FS }
