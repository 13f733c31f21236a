package store

import (
	"slices"
	"sync"
	"time"
)

// undated is the age of an anchor until Prune gives it one.
const undated = -1

// anchor keeps the events after Head in the log until the log is older than Age by
// Options.SnapshotRetention.
type anchor struct {
	_    struct{} `cbor:",toarray"`
	Age  int64    // microseconds, by the clock of ages
	Head uint64
}

// anchors are the heads at which snapshots began, in rising order of both fields. There is at most
// one for each step of Prune: snapshots that begin between two steps share it. Only time ends an
// anchor: a consumer that was disconnected needs it as much as one that reads.
type anchors struct {
	mu  sync.Mutex
	all []anchor // mu guards; the last may be undated
}

// anchor keeps the events after the head of the log, and returns the head.
func (s *Store) anchor() (head uint64) {
	a := &s.anchors
	a.mu.Lock()
	defer a.mu.Unlock()
	// If limit ran before, its event is at most the head of that time, plus one. If it runs
	// later, it finds the anchor.
	head = s.Head()
	if n := len(a.all); n == 0 || a.all[n-1].Age != undated {
		a.all = append(a.all, anchor{Age: undated, Head: head})
	}
	return head
}

// limit dates the last anchor, drops anchors that are too old, and lowers to, the event up to which
// the log is to be pruned, to what the other anchors allow. It puts the anchors into v for saving.
func (a *anchors) limit(v *agesV1, retention time.Duration, to uint64) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := len(a.all); n > 0 && a.all[n-1].Age == undated {
		a.all[n-1].Age = v.Age
	}
	a.all = slices.DeleteFunc(a.all,
		func(x anchor) bool { return x.Age+retention.Microseconds() <= v.Age })
	v.Anchors = slices.Clone(a.all)
	if len(a.all) > 0 {
		to = min(to, a.all[0].Head+1)
	}
	return to
}
