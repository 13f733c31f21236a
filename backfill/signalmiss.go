package backfill

import (
	"cmp"
	"hash/maphash"
	"sync"
	"time"

	"cistern/backfill/refilter"
	"cistern/store"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// signalMisses is a negative cache of repositories that were fetched for a signal and held no
// record of it. Their rows are deleted, so without the cache a repository whose commits keep
// showing a signal would be fetched each time.
type signalMisses struct {
	seed maphash.Seed

	mu   sync.Mutex
	last *simplelru.LRU[uint64, signalMiss] // mu guards; keys are hashes of DIDs
}

// signalMiss counts consecutive fetches of a repository that found no signal.
type signalMiss struct {
	count uint32
	due   time.Time // when it may be fetched again
}

func newSignalMisses() (*signalMisses, error) {
	last, err := simplelru.NewLRU[uint64, signalMiss](signalMissesMax, nil)
	return &signalMisses{seed: maphash.MakeSeed(), last: last}, err
}

// add records a fetch that found no signal. The first one within signalMissFor causes no delay.
func (f *signalMisses) add(did string, now time.Time, delay func(count uint32) time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := maphash.String(f.seed, did)
	is, _ := f.last.Get(key)
	if now.Sub(is.due) > signalMissFor {
		is.count = 0
	}
	if is.due = now; is.count > 0 {
		is.due = now.Add(delay(is.count))
	}
	is.count++
	f.last.Add(key, is)
}

// due returns when a repository may be fetched for a signal again.
func (f *signalMisses) due(did string) time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	is, _ := f.last.Get(maphash.String(f.seed, did))
	return is.due
}

// tooSoon reports whether a recent fetch of the repository found no record that a signal names, and
// until when it must wait.
func (t *task) tooSoon() (due time.Time, soon bool) {
	if t.win.row.Ordinal != 0 || !refilter.OnSignal(t.r.store.Filter().Filter, &t.win.row) {
		return time.Time{}, false
	}
	due = t.r.signalMisses.due(t.it.did)
	return due, due.After(t.r.opts.Now())
}

// postpone ends the task without a request, and defers the repository until due.
func (t *task) postpone(due time.Time) (outcome, error) {
	next := due.Unix() + 1
	row, err := t.win.update(func(b *store.Batch, row *store.Repo) error {
		retry := row.Retry
		retry.Kind, retry.Next, retry.Since = store.Generic, next,
			cmp.Or(retry.Since, t.r.opts.Now().Unix())
		retry.Error = "fetched recently without a record that a signal names"
		b.Defer(row, retry)
		return nil
	})
	if err != nil {
		return outcome{}, err
	}
	return ended(row, ""), nil
}
