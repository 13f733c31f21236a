package intake_test

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
	"cistern/intake"
	"cistern/store"
	"cistern/store/storetest"

	"golang.org/x/sync/errgroup"
)

// BenchmarkPipeline brings the same repositories into an empty store: fetched by a backfill from one
// host that answers from memory, and loaded from a directory and from archives. Identities are in
// memory. An operation is one world, and pairs of one run compare.
func BenchmarkPipeline(b *testing.B) {
	for _, size := range []struct {
		name    string
		options simnet.Options
	}{
		{"small", simnet.Options{Seed: 1, Hosts: 1, Repos: 4000, RecordsMedian: 12, RecordsMax: 60, NoLimit: true}},
		{"mixed", simnet.Options{Seed: 2, Hosts: 1, Repos: 150, RecordsMedian: 500, RecordsMax: 20000, NoLimit: true}},
	} {
		x := newBenchWorld(b, size.options)
		b.Run(size.name+"/backfill", func(b *testing.B) { x.measure(b, x.backfill) })
		for _, f := range forms {
			src := f.write(b, x.files)
			b.Run(size.name+"/"+f.name, func(b *testing.B) {
				x.measure(b, func(b *testing.B, s *store.Store) { x.load(b, s, src) })
			})
		}
	}
}

// benchWorld is a world whose host and directory cost almost nothing.
type benchWorld struct {
	idents  backfilltest.Directory
	files   []file
	records int
	bytes   int64
}

func newBenchWorld(b *testing.B, o simnet.Options) *benchWorld {
	net, err := simnet.New(o)
	if err != nil {
		b.Fatal(err)
	}
	if err := net.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	defer net.Close()
	directory, err := identity.New(identity.Options{PLC: []string{net.PLC()}, AllowPrivate: true})
	if err != nil {
		b.Fatal(err)
	}
	cars, x := map[string][]byte{}, &benchWorld{idents: backfilltest.Directory{}}
	host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write(cars[r.URL.Query().Get("did")])
	}))
	b.Cleanup(host.Close)
	for i, a := range net.Accounts() {
		car := a.CAR()
		cars[a.DID()] = car
		x.files = append(x.files, file{fmt.Sprintf("repos/%02x/%d.car", i%256, i), car})
		x.records += len(a.Truth().Records)
		x.bytes += int64(len(car))
		ident, err := directory.Resolve(b.Context(), a.DID())
		if err != nil {
			b.Fatal(err)
		}
		ident.PDS = host.URL
		x.idents[a.DID()] = ident
	}
	return x
}

// measure runs a copy of all repositories into an empty store.
func (x *benchWorld) measure(b *testing.B, copyAll func(*testing.B, *store.Store)) {
	b.SetBytes(x.bytes)
	var spent time.Duration
	for b.Loop() {
		b.StopTimer()
		s, err := store.Open(store.Options{Dir: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		before := cpuTime(b)
		b.StartTimer()
		copyAll(b, s)
		b.StopTimer()
		spent += cpuTime(b) - before
		if n := s.Counts()["synced"]; n != int64(len(x.idents)) {
			b.Fatalf("%d of %d are synced", n, len(x.idents))
		}
		storetest.Check(b, s)
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	n := float64(b.N)
	b.ReportMetric(n*float64(x.records)/b.Elapsed().Seconds(), "records/s")
	b.ReportMetric(n*float64(x.records)/spent.Seconds(), "records/cpu-s")
}

func (x *benchWorld) backfill(b *testing.B, s *store.Store) {
	for did := range x.idents {
		_, err := s.UpdateRepo(did, func(b *store.Batch, row *store.Repo) error {
			b.Track(row, store.ByOperator, store.PriorityDiscovery)
			b.PutRepo(row)
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	r, err := backfill.New(backfill.Options{Store: s, Directory: x.idents, AllowPrivate: true, PerHost: 32})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	var g errgroup.Group
	g.Go(func() error { return r.Run(ctx) })
	g.Go(func() error { return s.Run(ctx) })
	for s.Counts()["synced"] != int64(len(x.idents)) {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
}

func (x *benchWorld) load(b *testing.B, s *store.Store, text string) {
	src, err := intake.Open(b.Context(), text, nil)
	if err != nil {
		b.Fatal(err)
	}
	l, err := intake.New(intake.Options{Store: s, Directory: x.idents, Source: src})
	if err != nil {
		b.Fatal(err)
	}
	if sum, err := l.Run(b.Context()); err != nil || sum.Refused != 0 {
		b.Fatalf("%v, %+v", err, sum)
	}
	if err := src.Close(); err != nil {
		b.Fatal(err)
	}
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
