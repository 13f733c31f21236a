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
	"cistern/filter"
	"cistern/ingest/identity"
	"cistern/store"
	"cistern/store/storetest"

	"golang.org/x/sync/errgroup"
)

// TestForgetMany measures how fast repositories are forgotten after a change of the filter, in
// tenths, and how long a read of a repository that stays takes meanwhile. CISTERNTEST_FORGET is the
// number of repositories: 1000000 takes some minutes and 2 GB of disk. No repository holds a record
// of the signal, so all are forgotten except those requested by name.
func TestForgetMany(t *testing.T) {
	n := 400
	if text := os.Getenv("CISTERNTEST_FORGET"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 10 {
			t.Fatalf("CISTERNTEST_FORGET=%q is no number from 10 on", text)
		}
	}
	s, err := store.Open(store.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.SetFilter(filter.Config{Mode: filter.ModeFull}); err != nil {
		t.Fatal(err)
	}
	const stay = 1 << 10
	const others = 1 << 30 // their DIDs are above the other DIDs
	holdCopies(t, s, 1, n, 3, store.ByNetwork)
	holdCopies(t, s, others, stay, 3, store.ByOperator)
	read := func(i int) time.Duration {
		t.Helper()
		begin := time.Now()
		row, err := s.Repo(storetest.DID(others + i*7919%stay))
		if err == nil {
			_, err = s.Record(&row, "app.test.a", "1")
		}
		if err != nil {
			t.Fatal(err)
		}
		return time.Since(begin)
	}
	median := func(of []time.Duration) time.Duration { slices.Sort(of); return of[len(of)/2] }
	var before []time.Duration
	for i := range 200 { // as rarely as below: a read after another is faster
		before = append(before, read(i))
		time.Sleep(time.Millisecond)
	}
	dir, err := identity.New(identity.Options{PLC: []string{"http://127.0.0.1:1"}, AllowPrivate: true})
	if err != nil {
		t.Fatal(err)
	}
	r, err := backfill.New(backfill.Options{Store: s, Directory: dir, AllowPrivate: true, SpoolDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.SetFilter(filter.Config{Signals: []string{"com.example.none"}}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return r.Run(ctx) })
	g.Go(func() error { return s.Run(ctx) })
	r.Wake()
	begin, tenth := time.Now(), time.Now()
	var during []time.Duration
	for i, goal := 0, n-n/10; ; i++ {
		left := int(s.Counts()["repos"]) - stay
		for ; left <= goal && goal >= 0; goal -= n / 10 {
			t.Logf("%8d of %d forgotten, %.0f a second; a read of another takes %v (%v before)", n-left, n, float64(n/10)/time.Since(tenth).Seconds(),
				median(append(during, read(i))), median(before))
			tenth, during = time.Now(), during[:0]
		}
		if left == 0 {
			break
		}
		during = append(during, read(i))
		time.Sleep(time.Millisecond)
	}
	t.Logf("%d repositories were forgotten in %v", n, time.Since(begin).Round(time.Millisecond))
	for _, running, err := r.Refilter(); running; _, running, err = r.Refilter() {
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	stop()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	storetest.Check(t, s)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// holdCopies stores n repositories with so many records each.
func holdCopies(t testing.TB, s *store.Store, from, n, records int, why store.Why) {
	t.Helper()
	m := storetest.Records{}
	for i := range records {
		m[fmt.Sprint("app.test.a/", i)] = storetest.Text(fmt.Sprint("text ", i))
	}
	for i := range n {
		row := store.Repo{DID: storetest.DID(from + i), State: store.StatePending, Tracked: why}
		b := s.NewBatch()
		b.PutRepo(&row)
		if _, err := b.Commit(); err != nil {
			t.Fatal(err)
		}
		im := m.Import(row, storetest.Rev(1))
		im.Filter = s.Filter().Selection
		im.Done = func(store.Repo, error) {}
		if err := s.Import(context.Background(), im); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.FlushImports(); err != nil {
		t.Fatal(err)
	}
}
