package backfill_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/backfill/backfilltest"
	"cistern/ingest/identity"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"

	"golang.org/x/sync/errgroup"
)

// BenchmarkSmallRepositories copies repositories of about 20 records, all of one host that answers
// from memory; ns/op is for one repository. The cost of the host itself is included.
func BenchmarkSmallRepositories(b *testing.B) {
	net, err := simnet.New(simnet.Options{Seed: 1, Hosts: 1, Repos: 4000, RecordsMedian: 12, RecordsMax: 60, NoLimit: true})
	if err != nil {
		b.Fatal(err)
	}
	cars, idents := map[string][]byte{}, backfilltest.Directory{}
	host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write(cars[r.URL.Query().Get("did")])
	}))
	defer host.Close()
	records := 0
	if err := net.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	defer net.Close()
	real, err := identity.New(identity.Options{PLC: []string{net.PLC()}, AllowPrivate: true})
	if err != nil {
		b.Fatal(err)
	}
	for _, a := range net.Accounts() {
		cars[a.DID()] = a.CAR()
		records += len(a.Truth().Records)
		ident, err := real.Resolve(b.Context(), a.DID())
		if err != nil {
			b.Fatal(err)
		}
		ident.PDS = host.URL
		idents[a.DID()] = ident
	}
	b.Logf("%d records a repository", records/len(cars))
	for _, perHost := range []int{4, 10, 32} {
		b.Run(fmt.Sprintf("perhost=%d", perHost), func(b *testing.B) {
			var cpu time.Duration
			rounds := b.N/len(cars) + 1
			for range rounds {
				b.StopTimer()
				cpu += copyAll(b, idents, perHost)
			}
			b.ReportMetric(float64(cpu.Microseconds())/float64(rounds*len(cars)), "cpu-µs/repo")
		})
	}
}

// copyAll copies all repositories, and returns the processor time.
func copyAll(b *testing.B, idents backfilltest.Directory, perHost int) time.Duration {
	s := storetest.Open(b, store.Options{})
	r, err := backfill.New(backfill.Options{Store: s, Directory: idents, AllowPrivate: true, PerHost: perHost})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	for did := range idents {
		row, err := s.RepoOrNew(did)
		if err != nil {
			b.Fatal(err)
		}
		row.State, row.Tracked, row.Pending.Priority = store.StatePending, store.ByOperator, store.PriorityDiscovery
		batch := s.NewBatch()
		batch.PutRepo(&row)
		if err := batch.CommitSync(); err != nil {
			b.Fatal(err)
		}
	}
	var g errgroup.Group
	before := cpuTime()
	b.StartTimer()
	g.Go(func() error { return r.Run(ctx) })
	g.Go(func() error { return s.Run(ctx) })
	for s.Counts()["synced"] != int64(len(idents)) {
		time.Sleep(time.Millisecond)
	}
	b.StopTimer()
	spent := cpuTime() - before
	cancel()
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	return spent
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
