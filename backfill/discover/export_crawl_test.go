package discover

import (
	"context"
	"errors"

	"cistern/backfill/discover/pages"
	"cistern/store"
)

// BoundAccounts sets how many accounts of a host are accepted, before any source exists.
func BoundAccounts(r *Runner, n int64) { r.crawls.accountsMax = n }

// Absorb adds an account from a complete page that was judged by a version of the filter. It
// reports whether that filter is no longer in force.
func Absorb(r *Runner, did string, version uint32, and func(b *store.Batch)) (refiltered bool, err error) {
	_, err = r.absorb([]pages.Entry{{DID: did}}, reading{why: store.ByNetwork, filter: version}, and)
	if errors.Is(err, errRefiltered) {
		return true, nil
	}
	return false, err
}

// LookAtLists makes every source read all lists that are due. When it returns, no list is due, and
// at most so many of a source are still being read.
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

// StoppingCrawl reports whether the last source was removed from the list and is about to be
// stopped, or is stopped with the list locked.
func StoppingCrawl(r *Runner) bool {
	if !r.crawls.mu.TryLock() {
		return true
	}
	defer r.crawls.mu.Unlock()
	return len(r.crawls.list) == 0
}

// FollowListed applies a list of unknown accounts that was read by a version of the filter.
func FollowListed(r *Runner, version uint32, dids ...string) error {
	var todo []pages.Entry
	for _, did := range dids {
		todo = append(todo, pages.Entry{DID: did})
	}
	_, err := r.absorb(todo, reading{why: store.ByNetwork, filter: version}, func(*store.Batch) {})
	return err
}
