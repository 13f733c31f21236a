package ingest

import (
	"cistern/ingest/identity"
	"cistern/ingest/repo"
	"cistern/store"
)

// decideFuture drops a commit whose rev is in the future: our clock is slow, or the host's is fast.
// If it were applied, every commit until that time would count as outdated. The repository is
// fetched at the time of the rev, or after a day if that is further ahead, within the refetch
// budget. Of several such revs the first sets the time.
func (it *item) decideFuture(w *writing, row *store.Repo) {
	it.outcome = outcomeRejected
	if !row.Known() {
		it.discover(w, row, "")
		return
	}
	due := repo.TIDTime(it.rev).Add(-repo.RevSkewMax)
	if most := it.now.Add(futureMax); due.After(most) {
		due = most
	}
	if row.FutureDue != 0 && row.FutureDue <= due.Unix()+1 {
		return
	}
	if allowed := it.r.budget.spend(row, identity.HostOf(row.PDS), it.now); allowed.After(due) {
		due = allowed
	}
	row.FutureDue = due.Unix() + 1
	if row.State == store.StateSynced {
		row.SeenRev = max(row.SeenRev, it.rev) // the row counts as behind until then
	}
	w.b.PutRepo(row)
	w.wake = true
	it.r.opts.Logger.Debug("dropped a commit with a rev in the future: fetching its repository later",
		"did", row.DID, "rev", it.rev, "due", due)
}
