package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/errgroup"
)

const retention = 72 * time.Hour

// retain lets time pass by the store's clock and applies the retention.
func retain(t testing.TB, s *store.Store, c *clock, d time.Duration) {
	t.Helper()
	c.tick(d)
	if err := store.Retain(t.Context(), s, retention); err != nil {
		t.Fatal(err)
	}
}

// TestRetention: an event stays for as long as retention says, and at most a little longer.
func TestRetention(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := storetest.Open(t, store.Options{Now: c.now})
	did := storetest.DID(1)
	imported(t, s, did, storetest.Records{"app.test.a/0": storetest.Text("first")})
	written := map[uint64]time.Time{1: c.now()}
	retain(t, s, c, 0)
	for i := range 24 * 14 {
		one(t, s, did, "app.test.a/1", fmt.Sprint(i))
		written[s.Head()] = c.now()
		retain(t, s, c, time.Hour)
		for id, at := range written {
			age := c.now().Sub(at)
			if kept := id >= s.Tail(); kept != (age < retention) && (age < retention || age > retention+2*time.Hour) {
				t.Fatalf("hour %d: event %d of %v ago: is kept %v", i, id, age, kept)
			}
		}
	}
}

// TestRetentionClock: a clock that was ahead or behind, or that jumps while the daemon runs or is
// off, neither keeps retention from pruning nor has it prune new events.
func TestRetentionClock(t *testing.T) {
	t.Parallel()
	const year, day = 365 * 24 * time.Hour, 24 * time.Hour
	for name, row := range map[string]struct {
		away time.Duration // error of the clock while two events are written
		off  bool          // the store is closed and opened as it jumps
	}{
		"ahead":           {year, false},
		"behind":          {-40 * year, false},
		"ahead while off": {year, true},
		"behind at start": {-40 * year, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClock()
			o := store.Options{FS: vfs.NewMem(), Dir: "db", Now: c.now}
			s, err := store.Open(o)
			if err != nil {
				t.Fatal(err)
			}
			jump := func(d time.Duration) {
				t.Helper()
				c.tick(d)
				if !row.off {
					return
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				if s, err = store.Open(o); err != nil {
					t.Fatal(err)
				}
			}
			did := storetest.DID(1)
			imported(t, s, did, storetest.Records{"app.test.a/0": storetest.Text("first")})
			retain(t, s, c, 0)
			jump(row.away)
			one(t, s, did, "app.test.a/1", "while the clock is wrong")
			retain(t, s, c, time.Minute)
			jump(-row.away)
			one(t, s, did, "app.test.a/2", "after")
			retain(t, s, c, time.Minute)
			for range 2 {
				retain(t, s, c, day)
			}
			if s.Tail() != 1 || s.Head() != 3 {
				t.Errorf("events of two days ago are pruned: tail %d, head %d", s.Tail(), s.Head())
			}
			for range 2 {
				retain(t, s, c, day)
			}
			if s.Tail() != 4 {
				t.Errorf("events of four days ago are kept: tail %d", s.Tail())
			}
			storetest.Check(t, s)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRetentionLater: time is counted without a retention too, so that a retention that is set
// later knows the age of events. The number of marks is bounded.
func TestRetentionLater(t *testing.T) {
	t.Parallel()
	c := newClock()
	o := store.Options{FS: vfs.NewMem(), Dir: "db", Now: c.now}
	s, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	did := storetest.DID(1)
	imported(t, s, did, storetest.Records{"app.test.a/0": storetest.Text("first")})
	for i := range 100 * 24 {
		if i%24 == 0 {
			one(t, s, did, "app.test.a/1", fmt.Sprint(i))
		}
		if err := store.Retain(t.Context(), s, 0); err != nil {
			t.Fatal(err)
		}
		c.tick(time.Hour)
	}
	if s.Tail() != 1 {
		t.Errorf("something is pruned without a retention: tail %d", s.Tail())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := storetest.Open(t, o)
	retain(t, again, c, 0)
	if kept := again.Head() + 1 - again.Tail(); kept < 2 || kept > 5 {
		t.Errorf("%d events of the last %v are kept, one was written a day", kept, retention)
	}
}

// TestRetentionRuns: Run prunes by itself.
func TestRetentionRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := store.Open(store.Options{FS: vfs.NewMem(), Dir: "db", Retention: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		imported(t, s, storetest.DID(1), storetest.Records{"app.test.a/0": storetest.Text("first")})
		ctx, stop := context.WithCancel(t.Context())
		var run errgroup.Group
		run.Go(func() error { return s.Run(ctx) })
		for _, row := range []struct {
			after time.Duration
			tail  uint64
		}{{50 * time.Minute, 1}, {15 * time.Minute, 2}} {
			time.Sleep(row.after)
			synctest.Wait()
			if s.Tail() != row.tail {
				t.Errorf("after %v: tail %d, want %d", row.after, s.Tail(), row.tail)
			}
		}
		stop()
		if err := errors.Join(run.Wait(), s.Close()); err != nil {
			t.Error(err)
		}
	})
}

// TestRetentionShort: a retention that is shorter than the pause between two runs of pruning works
// too.
func TestRetentionShort(t *testing.T) {
	t.Parallel()
	for _, keep := range []time.Duration{time.Second, time.Minute} {
		c := newClock()
		s := storetest.Open(t, store.Options{Now: c.now})
		did := storetest.DID(1)
		imported(t, s, did, storetest.Records{"app.test.a/0": storetest.Text("first")})
		for range 4 {
			if err := store.Retain(t.Context(), s, keep); err != nil {
				t.Fatal(err)
			}
			c.tick(time.Minute + time.Second)
		}
		if s.Tail() != 2 {
			t.Errorf("retention %v: an event of four minutes ago is kept", keep)
		}
	}
}
