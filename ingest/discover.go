package ingest

import (
	"cistern/ingest/frame"
	"cistern/ingest/repo"
	"cistern/store"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// wanted reports whether the repository of an event is followed, or may be followed because of the
// event, and why. A repository that the filter excludes is followed until its row is dropped: if
// the exclusion is lifted before that, the row must not lack any event.
func (it *item) wanted(row *store.Repo) (why store.Why, ok bool) {
	f, why := it.r.store.Filter(), row.Tracked
	switch {
	case it.job == jobIdentity && why == store.Untracked:
		it.r.opts.Directory.Purge(row.DID)
		return why, false
	case it.job == jobAccount && row.Known():
		return why, why != store.Untracked || row.Ordinal != 0
	case row.Known():
		return why, why != store.Untracked
	case f.Excluded(row.DID):
		return why, false
	case f.Full():
		return store.ByNetwork, true
	case it.job == jobCommit && signals(f, it.f.Ops):
		return store.BySignal, true
	}
	return store.Untracked, false
}

// signals reports whether the operations of a commit touch a collection that a signal names.
func signals(f store.FilterVersion, ops []frame.Op) bool {
	for _, op := range ops {
		if collection, _, ok := repo.SplitPath(op.Path); ok && f.Signal(collection) {
			return true
		}
	}
	return false
}

// discover follows an unknown repository. The event is unverified: the fetch verifies it.
func (it *item) discover(w *writing, row *store.Repo, rev string) {
	why, ok := it.wanted(row)
	if !ok {
		return
	}
	it.outcome = outcomeTracked
	row.SeenRev = rev
	w.b.Track(row, why, store.PriorityDiscovery)
	w.b.PutRepo(row)
	w.wake = true
}

func validDID(did string) bool {
	_, err := syntax.ParseDID(did)
	return err == nil
}
