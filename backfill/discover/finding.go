package discover

import (
	"context"
	"errors"
	"slices"

	"cistern/backfill/discover/pages"
	"cistern/backfill/hosts"
	"cistern/ingest/identity"
	"cistern/ingest/repo"
	"cistern/loop"
	"cistern/store"
)

// finding is what an entry of a list requires.
type finding uint8

const (
	nothing  finding = iota
	isNew            // to be followed
	isUnsure         // followed if its host reports a collection that a signal names
	isAhead          // a fetch under way must not end below its rev
	isBehind         // its host must be asked for a later commit
)

// reading states for what purpose a list is read, and how.
type reading struct {
	why     store.Why // why unknown accounts are followed; Untracked: they are not
	ask     bool      // follow only accounts with a collection that a signal names
	out     bool      // also follow accounts that the list calls inactive: their own host is asked
	compare bool      // the list shows revs and statuses
	host    string    // whose list it is, believed about its own accounts only; "": a relay
	id      uint32    // of that host
	source  uint32    // store.SourceID of the host that gave the list
	filter  uint32    // version of the filter that decided this
	listing *listing  // records which repositories the list names; nil: not needed
}

// errRefiltered means that a list was read for a filter that is no longer in force. The page is
// read again.
var errRefiltered = errors.New("the filter was changed")

// survey counts the entries of a page: all, known ones to be fetched again, and new ones.
type survey struct {
	listed, queued, found int64
}

// choose returns the entries that require a change. It holds no locks: absorb checks the entries
// again.
func (r *Runner) choose(entries []pages.Entry, v reading) (todo []pages.Entry, err error) {
	for _, e := range entries {
		row, err := r.store.RepoOrNew(e.DID)
		if err != nil {
			return nil, hosts.OfStore(err)
		}
		v.listing.show(&row)
		if r.find(&row, e, v) != nothing {
			todo = append(todo, e)
		}
	}
	return todo, nil
}

// find compares an entry with the stored row. A list may be older than the row, so only an entry
// that is ahead of it matters, and the repository's own host decides.
func (r *Runner) find(row *store.Repo, e pages.Entry, v reading) finding {
	if !row.Known() {
		return r.findUnknown(e, v)
	}
	if row.Tracked == store.Untracked || !v.compare {
		return nothing
	}
	status, hidden := e.Hidden()
	if v.host != "" && !livesAt(row, v) {
		// The account belongs to another host, or it is unavailable and has moved to this host
		// since. Nothing else would have an account of the latter kind checked again.
		if e.IsActive() && row.State == store.StateGone && row.Retry.Next == 0 {
			return isBehind
		}
		return nothing
	}
	// While a repository is fetched or drained, its own host may have answered already, after this
	// list was made.
	underway := row.State == store.StateDraining ||
		row.State == store.StatePending && r.store.Fetching(row.DID)
	switch {
	case !e.IsActive():
		if hidden && status.Hidden() && !row.Status.Hidden() &&
			(row.State == store.StateSynced || underway) {
			return isBehind
		}
	case row.HiddenByRelay():
		if v.source == row.AccountSource && row.State == store.StateGone {
			return isBehind // the relay that hid the account lists it as active again
		}
	case row.State == store.StateGone:
		return isBehind
	case row.State == store.StateSynced && e.Rev > row.Rev:
		return isBehind
	case underway && e.Rev > max(row.Rev, row.SeenRev):
		return isAhead
	}
	return nothing
}

func (r *Runner) findUnknown(e pages.Entry, v reading) finding {
	if v.why == store.Untracked || r.store.Filter().Excluded(e.DID) {
		return nothing
	}
	if status, hidden := e.Hidden(); hidden {
		if v.out && status != store.StatusDeleted {
			return isNew // neither its status nor its host is verified yet
		}
		return nothing
	}
	if v.ask {
		return isUnsure
	}
	return isNew
}

// livesAt reports whether an account belongs to a host, or its host is not known yet.
func livesAt(row *store.Repo, v reading) bool {
	if row.PDS != "" {
		return identity.HostOf(row.PDS) == v.host
	}
	return row.Pending.Host == 0 || row.Pending.Host == v.id
}

// awaitLive waits a moment if the list shows a rev so young that its event may be under way.
func (r *Runner) awaitLive(ctx context.Context, todo []pages.Entry, v reading) {
	now := r.opts.Now()
	for _, e := range todo {
		if e.Rev == "" || now.Sub(repo.TIDTime(e.Rev)) > lagAge {
			continue
		}
		row, err := r.store.RepoOrNew(e.DID)
		if err == nil && row.State == store.StateSynced && r.find(&row, e, v) == isBehind {
			loop.Sleep(ctx, lagGrace, nil)
			return
		}
	}
}

// unheard reports whether the listing of a host names a rev that is not stored, and that is so old
// that its event should have arrived.
func (r *Runner) unheard(todo []pages.Entry, v reading) bool {
	now := r.opts.Now()
	return v.host != "" && slices.ContainsFunc(todo, func(e pages.Entry) bool {
		if e.Rev == "" || now.Sub(repo.TIDTime(e.Rev)) < lagAge {
			return false
		}
		row, err := r.store.RepoOrNew(e.DID)
		return err == nil && row.State == store.StateSynced && e.Rev > row.Rev &&
			r.find(&row, e, v) == isBehind
	})
}

// absorb makes the changes that entries require, in batches of bounded size. The function extra
// adds to the last batch. After errRefiltered some batches may be durable, but not the last.
func (r *Runner) absorb(
	todo []pages.Entry, v reading, extra func(b *store.Batch),
) (s survey, err error) {
	for len(todo) > crawlLocksMax {
		if err := r.absorbSome(todo[:crawlLocksMax], v, &s, func(*store.Batch) {}); err != nil {
			return s, err
		}
		todo = todo[crawlLocksMax:]
	}
	err = r.absorbSome(todo, v, &s, extra)
	if s.queued+s.found > 0 {
		r.metrics.found.Add(float64(s.found))
		r.opts.Enqueued()
	}
	return s, err
}

func (r *Runner) absorbSome(
	chunk []pages.Entry, v reading, s *survey, extra func(b *store.Batch),
) error {
	i := -1
	done := survey{}
	err := r.inBatch(pages.Accounts(chunk), v.filter, func(b *store.Batch, row *store.Repo) {
		i++
		r.follow(b, row, chunk[i], v, &done)
	}, extra)
	if err == nil {
		s.queued += done.queued
		s.found += done.found
	}
	return err
}

// follow makes the change that an entry requires.
func (r *Runner) follow(b *store.Batch, row *store.Repo, e pages.Entry, v reading, s *survey) {
	v.listing.show(row) // choose may not have called it
	switch r.find(row, e, v) {
	case nothing:
		return
	case isNew, isUnsure: // inspect has left out accounts without a wanted collection
		row.Pending.Host = v.id
		b.Track(row, v.why, store.PriorityDiscovery)
		s.found++
	case isBehind:
		if row.HiddenByRelay() {
			row.Origin = store.OriginHost // the relay no longer hides the account: the host decides
		}
		lookAgainAt(b, row)
		s.queued++
	}
	if e.IsActive() {
		row.SeenRev = max(row.SeenRev, e.Rev)
	}
	b.PutRepo(row)
}

// lookAgainAt makes a row pending, so that the account's host is asked whether it has a later
// commit.
func lookAgainAt(b *store.Batch, row *store.Repo) {
	row.Recheck = true
	b.Enqueue(row, store.PriorityRetry)
}

// inBatch changes the rows of some repositories in one batch, each under its lock, if the version
// is that of the filter in force. The function extra adds to the same batch. The DIDs are in
// ascending order. When inBatch returns, the batch is durable.
func (r *Runner) inBatch(
	dids []string, version uint32, change func(b *store.Batch, row *store.Repo),
	extra func(b *store.Batch),
) error {
	wait, err := r.store.Update(dids, func(b *store.Batch, rows []store.Repo) error {
		if r.store.Filter().Version != version {
			return errRefiltered
		}
		for i := range rows {
			change(b, &rows[i])
		}
		extra(b)
		return nil
	})
	if err == nil {
		err = wait()
	}
	if errors.Is(err, errRefiltered) {
		return err
	}
	return hosts.OfStore(err)
}
