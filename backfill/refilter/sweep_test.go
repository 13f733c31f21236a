package refilter_test

import (
	"testing"

	"cistern/filter"
	"cistern/store"
	"cistern/store/storetest"
)

const posts, likes = "app.test.post", "app.test.like"

// TestSweepLeavesFetches: while a repository is fetched by a later filter, a sweep by the earlier one
// deletes nothing that the copy was compared with already.
func TestSweepLeavesFetches(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	did := storetest.DID(1)
	s.hold(did, storetest.Records{posts + "/1": storetest.Text("a"), likes + "/1": storetest.Text("b")})
	s.filter(filter.Config{Collections: []string{posts}})
	s.change(did, func(_ *store.Batch, r *store.Repo) { r.Filter, r.Sweep = s.store.Filter().Selection, true }) // as the pass begins
	row := s.row(did)
	s.filter(filter.Config{Collections: []string{posts, likes}})
	s.store.BeginFetch(did)
	goes, err := s.run.SweepPart(&row, likes+"/1")
	if _, gerr := s.store.Record(&row, likes, "1"); err != nil || goes || gerr != nil {
		t.Errorf("the sweep goes on: %v (%v), and the record that it does not want: %v", goes, err, gerr)
	}
	s.store.EndFetch(did)
	if goes, err = s.run.SweepPart(&row, likes+"/1"); err != nil || !goes {
		t.Errorf("after the fetch the sweep goes on: %v (%v)", goes, err)
	}
	if _, err := s.store.Record(&row, likes, "1"); err == nil {
		t.Error("after the fetch the record is still shown")
	}
}

// TestSweepHolds: the sweep of a large repository does not keep all its batches in memory until the
// page of the pass ends.
func TestSweepHolds(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	s := newStage(t)
	const records = 60_000
	did := storetest.DID(1)
	s.hold(did, many(records))
	s.filter(filter.Config{Collections: []string{likes}})
	s.change(did, func(_ *store.Batch, r *store.Repo) { r.Filter, r.Sweep = s.store.Filter().Selection, true })
	row := s.row(did)
	held, most, err := s.run.SweepHeld(&row)
	if err != nil || held > most {
		t.Errorf("%d bytes of batches wait for the disk after a sweep of %d records, at most %d should (%v)", held, records, most, err)
	}
	if row := s.row(did); row.Sweep || row.Records != 0 {
		t.Errorf("not swept: %d records, sweep %v", row.Records, row.Sweep)
	}
}
