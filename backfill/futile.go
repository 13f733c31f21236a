package backfill

import (
	"hash/maphash"
	"sync"
	"time"

	"cistern/backfill/refilter"
	"cistern/store"
)

// futile remembers who was fetched for a signal and had no record of it, for the row of such a one is gone: who shows a
// signal again and again is not fetched each time. At most twice futileMax are remembered, of some 50 bytes, those of late.
type futile struct {
	seed maphash.Seed

	mu       sync.Mutex
	now, old map[uint64]futility // mu guards; by hash of the DID
}

// futility is what was fetched in vain, how often in a row.
type futility struct {
	count uint32
	due   time.Time // when it may be fetched again
}

func newFutile() *futile { return &futile{seed: maphash.MakeSeed(), now: map[uint64]futility{}} }

// of is what is remembered under a hash. The mutex is held.
func (f *futile) of(key uint64) futility {
	if was, known := f.now[key]; known {
		return was
	}
	return f.old[key]
}

// add remembers a fetch in vain. The first in an hour costs nothing.
func (f *futile) add(did string, now time.Time, delay func(count uint32) time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := maphash.String(f.seed, did)
	is := f.of(key)
	if now.Sub(is.due) > futileFor {
		is.count = 0
	}
	if is.due = now; is.count > 0 {
		is.due = now.Add(delay(is.count))
	}
	is.count++
	if len(f.now) >= futileMax {
		f.old, f.now = f.now, map[uint64]futility{}
	}
	f.now[key] = is
}

// due is when a repository may be fetched for a signal.
func (f *futile) due(did string) time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.of(maphash.String(f.seed, did)).due
}

// tooSoon says whether a repository that was found for a signal was fetched in vain lately, and till when it waits then.
func (t *task) tooSoon() (due time.Time, soon bool) {
	if t.row.Ordinal != 0 || !refilter.OnSignal(t.r.store.Filter().Filter, &t.row) {
		return time.Time{}, false
	}
	due = t.r.futile.due(t.it.did)
	return due, due.After(t.r.opts.Now())
}

// postpone ends the task before its host is asked anything.
func (t *task) postpone(due time.Time) error {
	next := due.Unix() + 1
	_, err := t.update(func(b *store.Batch, row *store.Repo) error {
		retry := row.Retry
		retry.Kind, retry.Next, retry.Since = store.Generic, next, defaultTo(retry.Since, t.r.opts.Now().Unix())
		retry.Error = "it was fetched lately, and had no record that a signal names"
		b.Defer(row, retry)
		return nil
	})
	if err != nil {
		return err
	}
	t.r.leave(t)
	t.r.due(next)
	return nil
}
