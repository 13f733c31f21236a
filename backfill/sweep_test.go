package backfill_test

import (
	"strings"
	"testing"

	"cistern/backfill"
	"cistern/filter"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"
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

// TestSweepHolds: the sweep of a large repository does not keep all its batches in memory until the page of the pass ends.
func TestSweepHolds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Seed: 3, Hosts: 1, Repos: 1, RecordsMedian: 4}})
	const records = 60_000
	did := storetest.DID(1)
	holdCopies(t, w.store, 1, 1, records, store.ByOperator)
	w.stop()
	w.refilter(filter.Config{Collections: []string{likes}})
	w.change(did, func(r *store.Repo) { r.Filter, r.Sweep = w.store.Filter().Selection, true })
	row := w.row(did)
	held, most, err := backfill.SweepHeld(w.run, &row)
	if err != nil || held > most {
		t.Errorf("%d bytes of batches wait for the disk after a sweep of %d records, at most %d should (%v)", held, records, most, err)
	}
	if row := w.row(did); row.Sweep || row.Records != 0 {
		t.Errorf("not swept: %d records, sweep %v", row.Records, row.Sweep)
	}
}
