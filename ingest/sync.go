package ingest

import "cistern/store"

// decideSync: the host says where a repository stands, without what led there.
func (it *item) decideSync(w *writing, row *store.Repo) {
	switch {
	case it.unsure:
		it.fail(w, row, unsure)
	case it.bad != nil:
		it.fail(w, row, invalid)
	case it.proof.commit.Data == row.Data:
		it.outcome = outcomeApplied
		it.learn(w, row)
		it.move(row)
		w.batch().PutRepo(row)
	default:
		it.fail(w, row, breaks)
	}
}
