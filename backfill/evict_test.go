package backfill_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/store"
	"cistern/store/storetest"
)

// TestEvictWhileReading: a host whose queue is being read is not forgotten in the middle of it.
func TestEvictWhileReading(t *testing.T) {
	t.Parallel()
	const hosts, each = 50, 40
	s := storetest.Open(t, store.Options{})
	b := s.NewBatch()
	for i := range hosts * each {
		id, err := s.HostID(fmt.Sprintf("h%d.test", i%hosts))
		if err != nil {
			t.Fatal(err)
		}
		row := store.Repo{DID: storetest.DID(i), State: store.StatePending, Tracked: store.ByOperator}
		row.Pending = store.PendingKey{Host: id, Priority: store.PriorityOperator}
		b.PutRepo(&row)
	}
	if err := b.CommitSync(); err != nil {
		t.Fatal(err)
	}
	r, err := backfill.New(backfill.Options{Store: s, Directory: directory{}})
	if err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for !stop.Load() {
			backfill.Evict(r)
		}
	}()
	for deadline := time.Now().Add(500 * time.Millisecond); time.Now().Before(deadline); {
		backfill.Rescan(r)
		for range hosts {
			picked, err := backfill.Pick(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			if picked.DID != "" {
				picked.Done()
			}
		}
	}
	stop.Store(true)
	<-ended
}
