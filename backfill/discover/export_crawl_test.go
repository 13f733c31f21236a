package discover

import (
	"context"
	"errors"

	"cistern/store"
)

// BoundAccounts sets how many accounts of a host are taken up, before any source is there.
func BoundAccounts(r *Runner, n int64) { r.crawls.accountsMax = n }

// Absorb takes up an account that a page named that was read in full, by a version of the filter. It says whether that is no longer
// in force.
func Absorb(r *Runner, did string, version uint32, and func(b *store.Batch)) (refiltered bool, err error) {
	_, err = r.absorb([]listed{{DID: did}}, reading{why: store.ByNetwork, filter: version}, and)
	if errors.Is(err, errRefiltered) {
		return true, nil
	}
	return false, err
}

// LookAtLists has every source read all lists that are due. When it returns, none is, and no more than so many of a source are
// still being read.
func LookAtLists(ctx context.Context, r *Runner, reading int) error {
	for _, c := range r.crawls.all() {
		for busy := true; busy; {
			if err := goRound(ctx, c.kick); err != nil {
				return err
			}
			c.mu.Lock()
			visits := 0
			for _, n := range c.visits {
				visits += n
			}
			q, d := c.first(r.opts.Now(), true)
			c.mu.Unlock()
			busy = visits > reading || q != nil && d <= 0
		}
	}
	return nil
}

// StoppingCrawl reports whether the last source is off the list and about to be stopped, or is stopped with the list locked.
func StoppingCrawl(r *Runner) bool {
	if !r.crawls.mu.TryLock() {
		return true
	}
	defer r.crawls.mu.Unlock()
	return len(r.crawls.list) == 0
}

// FollowListed does what follows from a list of unknown accounts that was read by a version of the
// filter.
func FollowListed(r *Runner, version uint32, dids ...string) error {
	var todo []listed
	for _, did := range dids {
		todo = append(todo, listed{DID: did})
	}
	_, err := r.absorb(todo, reading{why: store.ByNetwork, filter: version}, func(*store.Batch) {})
	return err
}
