package ingest

import (
	"cistern/ingest/repo"
	"cistern/store"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// wanted says whether an event is of a repository that we follow, or may follow from now on.
func (it *item) wanted(row *store.Repo) bool {
	full := it.r.store.Filter().Full()
	switch {
	case it.job == jobIdentity && row.Tracked == store.Untracked:
		it.r.opts.Directory.Purge(row.DID)
		return false
	case it.job == jobAccount && row.Known():
		return row.Tracked != store.Untracked || row.Ordinal != 0
	case row.Known():
		return row.Tracked != store.Untracked
	case it.job == jobCommit:
		return full || it.signals()
	}
	return full
}

// signals says whether a commit touches a collection that makes its repository one to follow.
func (it *item) signals() bool {
	f := it.r.store.Filter()
	for _, op := range it.f.Ops {
		if collection, _, ok := repo.SplitPath(op.Path); ok && f.Signal(collection) {
			return true
		}
	}
	return false
}

// discover follows an unknown repository. Nobody has verified the event: the fetch finds out what is true.
func (it *item) discover(w *writing, row *store.Repo, rev string) {
	if !it.wanted(row) {
		return
	}
	it.outcome = outcomeTracked
	row.State, row.Tracked, row.SeenRev = store.StatePending, store.ByNetwork, rev
	row.Pending = store.PendingKey{Priority: store.PriorityDiscovery}
	w.batch().PutRepo(row)
	w.wake = true
}

func validDID(did string) bool {
	_, err := syntax.ParseDID(did)
	return err == nil
}
