package ingest

import (
	"cistern/ingest/repo"
	"cistern/store"
)

// decideSync applies a #sync, in which the host states the head of a repository without the
// operations that led to it.
func (it *item) decideSync(w *writing, row *store.Repo) {
	switch {
	case it.check.bad != nil && rejection(it.check.bad) == refusedEnvelope &&
		it.check.proof.slice.Root() == repo.HashCID(row.Commit):
		// This is the commit of our copy, under a rev that is not its own. Hosts that imported a
		// repository send such events. Nothing is missing.
		it.outcome = outcomeSkipped
	case it.check.unsure:
		it.fail(w, row, unsure)
	case it.check.bad != nil:
		it.fail(w, row, invalid)
	case it.check.proof.commit.Data == row.Data:
		it.outcome = outcomeApplied
		it.backlog.learn(w, row)
		it.check.move(row)
		w.b.PutRepo(row)
	default:
		it.fail(w, row, breaks)
	}
}
