package backfill_test

import (
	"strings"
	"testing"

	"cistern/backfill"
	"cistern/filter"
	"cistern/ingest/simnet"
	"cistern/store"
)

// TestSweepLeavesFetches: while a repository is fetched by a later filter, a sweep by the one before deletes nothing that
// the copy was compared with already.
func TestSweepLeavesFetches(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Seed: 3, Hosts: 1, Repos: 1, RecordsMedian: 40}})
	did := w.net.DIDs()[0]
	w.add(did)
	w.converges(did)
	w.stop()
	w.refilter(filter.Config{Collections: []string{posts}})
	w.change(did, func(r *store.Repo) { r.Filter, r.Sweep = 1, true }) // as the pass begins with it
	row, like := w.row(did), ""
	for path := range w.net.Account(did).Truth().Records {
		if strings.HasPrefix(path, likes+"/") {
			like = path
		}
	}
	w.refilter(filter.Config{Collections: []string{posts, likes}})
	w.store.BeginFetch(did)
	goes, err := backfill.SweepPart(w.run, &row, like)
	if _, gerr := w.store.Record(&row, likes, strings.TrimPrefix(like, likes+"/")); err != nil || goes || gerr != nil {
		t.Errorf("the sweep goes on: %v (%v), and what it does not want is: %v", goes, err, gerr)
	}
	w.store.EndFetch(did)
	if goes, err = backfill.SweepPart(w.run, &row, like); err != nil || !goes {
		t.Errorf("after the fetch the sweep goes on: %v (%v)", goes, err)
	}
	w.start(backfill.Options{})
	w.converges(did)
}
