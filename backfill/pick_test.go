package backfill_test

import (
	"slices"
	"testing"

	"cistern/backfill"
	"cistern/backfill/backfilltest"
	"cistern/store"
	"cistern/store/storetest"
)

// TestPickOfMovedRow: a repository that moves to the queue of another host after its row was read
// ahead in the former queue is found in both, and is in flight once (invariant 4).
func TestPickOfMovedRow(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	r, err := backfill.New(backfill.Options{Store: s, Directory: backfilltest.Directory{}})
	if err != nil {
		t.Fatal(err)
	}
	change := func(did string, f func(b *store.Batch, row *store.Repo)) {
		t.Helper()
		wait, err := s.UpdateRepo(did, func(b *store.Batch, row *store.Repo) error {
			f(b, row)
			b.PutRepo(row)
			return nil
		})
		if err == nil {
			err = wait()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	dids := []string{storetest.DID(1), storetest.DID(2), storetest.DID(3)}
	for _, did := range dids {
		change(did, func(b *store.Batch, row *store.Repo) {
			b.Rehost(row, "former.test")
			b.Track(row, store.ByOperator, store.PriorityOperator)
		})
	}
	backfill.Rescan(r)
	var picked []string
	pick := func() {
		t.Helper()
		p, err := backfill.Pick(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if p.DID != "" {
			picked = append(picked, p.DID)
		}
	}
	pick() // reads all rows of the former host
	change(dids[2], func(b *store.Batch, row *store.Repo) {
		b.Rehost(row, "new.test")
		b.Enqueue(row, store.PriorityOperator)
	})
	backfill.Rescan(r)
	// The hosts take turns: the former host gives the second repository, the rows of the new host
	// are read, and then both queues hold the third repository.
	for range 10 {
		pick()
	}
	if !slices.Equal(picked, dids) {
		t.Errorf("picked %v, want %v", picked, dids)
	}
}
