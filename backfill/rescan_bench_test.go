package backfill_test

import (
	"fmt"
	"testing"

	"cistern/backfill"
	"cistern/backfill/backfilltest"
	"cistern/store"
	"cistern/store/storetest"
)

// BenchmarkRescan measures the scan of all queues that a wake-up causes at most once a second, with
// one row at each of so many hosts.
func BenchmarkRescan(b *testing.B) {
	for _, hosts := range []int{1000, 10_000, 40_000} { // the last number is more than the table holds
		b.Run(fmt.Sprintf("hosts=%d", hosts), func(b *testing.B) {
			s := storetest.Open(b, store.Options{})
			batch := s.NewBatch()
			for i := range hosts {
				id, err := s.HostID(fmt.Sprintf("h%d.test", i))
				if err != nil {
					b.Fatal(err)
				}
				row := store.Repo{DID: fmt.Sprintf("did:web:h%d.test", i), State: store.StatePending, Tracked: store.ByOperator}
				row.Pending = store.PendingKey{Host: id, Priority: store.PriorityOperator}
				batch.PutRepo(&row)
			}
			if err := batch.CommitSync(); err != nil {
				b.Fatal(err)
			}
			r, err := backfill.New(backfill.Options{Store: s, Directory: backfilltest.Directory{}})
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				backfill.Rescan(r)
			}
		})
	}
}
