package backfill_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/backfill/backfilltest"
	"cistern/store"
	"cistern/store/storetest"
)

// BenchmarkPick measures finding the next repository to fetch, and reading the front of a host's
// queue, while the queue grows: the time should not depend on its length. Half of the repositories
// wait at one host, the other half at 99.
//
// CISTERNTEST_QUEUE=5000000 makes that the longest queue, which takes a minute to build.
func BenchmarkPick(b *testing.B) {
	longest := 100_000
	if text := os.Getenv("CISTERNTEST_QUEUE"); text != "" {
		var err error
		if longest, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	s, err := store.Open(store.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	q := &queueOf{b: b, store: s}
	for _, n := range []int{10_000, 100_000, 1_000_000, 5_000_000} {
		if n > longest {
			return
		}
		q.grow(n)
		b.Run(fmt.Sprintf("queue=%d", n), func(b *testing.B) {
			b.Run("pick", q.pick)
			b.Run("scan", q.scan)
		})
	}
}

// queueOf is a store with a queue.
type queueOf struct {
	b     *testing.B
	store *store.Store
	hosts []uint32
	rows  int // enqueued so far
}

// grow enqueues until n wait.
func (q *queueOf) grow(n int) {
	for i := len(q.hosts); i < 100; i++ {
		id, err := q.store.HostID(fmt.Sprintf("pds%d.test", i))
		if err != nil {
			q.b.Fatal(err)
		}
		q.hosts = append(q.hosts, id)
	}
	for waiting := int(q.store.Counts()["pending"]); waiting < n; {
		batch := q.store.NewBatch()
		for range min(1000, n-waiting) {
			host := q.hosts[0]
			if q.rows%2 == 1 {
				host = q.hosts[q.rows/2%len(q.hosts)]
			}
			batch.PutRepo(&store.Repo{DID: storetest.DID(q.rows), State: store.StatePending, Tracked: store.ByNetwork, PDS: "http://pds.test",
				Pending: store.PendingKey{Host: host, Priority: store.PriorityDiscovery}})
			q.rows++
			waiting++
		}
		if _, err := batch.Commit(); err != nil {
			q.b.Fatal(err)
		}
	}
}

// pick takes repositories out of the queue as the dispatcher does, and has them done at once.
func (q *queueOf) pick(b *testing.B) {
	r, err := backfill.New(backfill.Options{Store: q.store, Directory: backfilltest.Directory{}, AllowPrivate: true})
	if err != nil {
		b.Fatal(err)
	}
	waiting := int(q.store.Counts()["pending"])
	var took []time.Duration
	for range 2000 { // hosts without a place in the table
		q.pickOne(b, r)
	}
	for b.Loop() {
		took = append(took, q.pickOne(b, r))
		if len(took)%1000 == 0 {
			q.grow(waiting)
			r.Wake()
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2]), "p50-ns/pick")
	b.ReportMetric(float64(took[len(took)*99/100]), "p99-ns/pick")
	b.ReportMetric(0, "ns/op") // of the row that is also written
	q.grow(waiting)
}

// pickOne returns the time of the pick alone.
func (q *queueOf) pickOne(b *testing.B, r *backfill.Runner) time.Duration {
	began := time.Now()
	picked, err := backfill.Pick(b.Context(), r)
	took := time.Since(began)
	for ; err == nil && picked.DID == ""; picked, err = backfill.Pick(b.Context(), r) {
		time.Sleep(time.Millisecond) // no host in memory has work, and the next scan finds more
		r.Wake()
	}
	if err != nil || picked.DID == "" {
		b.Fatal(picked, err)
	}
	row, err := q.store.Repo(picked.DID)
	if err != nil {
		b.Fatal(err)
	}
	batch := q.store.NewBatch()
	batch.Untrack(&row)
	batch.PutRepo(&row)
	if _, err := batch.Commit(); err != nil {
		b.Fatal(err)
	}
	picked.Done()
	return took
}

// scan reads the first 32 rows of a host's queue.
func (q *queueOf) scan(b *testing.B) {
	for i := 0; b.Loop(); i++ {
		host, n := q.hosts[i%len(q.hosts)], 0
		err := q.store.ScanPending(context.Background(), host, func(k store.PendingKey, _ string) bool {
			if n++; n == 32 || k.Host != host {
				return false
			}
			return true
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}
