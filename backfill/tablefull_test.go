package backfill_test

import (
	"fmt"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/backfill/backfilltest"
	"cistern/store"
	"cistern/store/storetest"
)

// TestMoreHostsThanPlaces: while all places of the table of hosts are in use, the rows of other
// hosts stay in their queues. They are found again once some hosts have no work.
func TestMoreHostsThanPlaces(t *testing.T) {
	t.Parallel()
	const places, hosts = 16 << 10, 16<<10 + 200
	s := storetest.Open(t, store.Options{})
	r, err := backfill.New(backfill.Options{
		Store: s, Directory: backfilltest.Directory{}, Concurrency: 2 * places, MemoryBytes: places << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	b := s.NewBatch()
	for i := range hosts {
		id, err := s.HostID(fmt.Sprintf("pds.h%d.test", i))
		if err != nil {
			t.Fatal(err)
		}
		row := store.Repo{DID: storetest.DID(i), State: store.StatePending, Tracked: store.ByOperator}
		row.Pending = store.PendingKey{Host: id, Priority: store.PriorityOperator}
		b.PutRepo(&row)
	}
	if _, err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	pick := func() (all []backfill.Picked) {
		t.Helper()
		backfill.Scan(r)
		for {
			p, err := backfill.Pick(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			if p.DID == "" {
				return all
			}
			all = append(all, p)
		}
	}
	first := pick()
	if len(first) != places {
		t.Errorf("%d hosts were picked for %d places", len(first), places)
	}
	b = s.NewBatch()
	for _, p := range first {
		row, err := s.Repo(p.DID)
		if err != nil {
			t.Fatal(err)
		}
		b.Untrack(&row)
		b.PutRepo(&row)
	}
	if _, err := b.Commit(); err != nil {
		t.Fatal(err)
	}
	for _, p := range first {
		p.Done()
	}
	rest := 0
	for deadline := time.Now().Add(20 * time.Second); rest < hosts-places && time.Now().Before(deadline); {
		rest += len(pick())
		time.Sleep(10 * time.Millisecond)
	}
	if rest != hosts-places {
		t.Errorf("%d of the other hosts were picked, want %d", rest, hosts-places)
	}
}
