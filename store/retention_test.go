package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
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
			if s.Tail() != 1 || s.Head() != 4 {
				t.Errorf("events of two days ago are pruned: tail %d, head %d", s.Tail(), s.Head())
			}
			for range 2 {
				retain(t, s, c, day)
			}
			if s.Tail() != 5 {
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

// TestPruneEvery: Prune, called every minute, removes events that are older than Options.Retention,
// and says how many.
func TestPruneEvery(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := storetest.Open(t, store.Options{Now: c.now, Retention: time.Hour})
	imported(t, s, storetest.DID(1), storetest.Records{"app.test.a/0": storetest.Text("first")})
	done, total := int64(0), int64(0)
	for minute := range 65 {
		if minute == 50 && s.Tail() != 1 {
			t.Errorf("after 50 minutes: tail %d", s.Tail())
		}
		err := s.Prune(t.Context(), func(d, all int64) { done, total = done+d, total+all })
		if err != nil {
			t.Fatal(err)
		}
		c.tick(s.PruneEvery())
	}
	if s.Tail() != 3 || done != 2 || total != 2 {
		t.Errorf("tail %d, %d of %d events removed", s.Tail(), done, total)
	}
	ended, stop := context.WithCancel(t.Context())
	stop()
	if err := s.Prune(ended, store.NoProgress); !errors.Is(err, context.Canceled) {
		t.Errorf("after its context ended: %v", err)
	}
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
		if s.Tail() != 3 { // after the record and that it is synced
			t.Errorf("retention %v: an event of four minutes ago is kept", keep)
		}
	}
}

// TestLogBytes: the size of the log is that of its rows and of the blocks that only it keeps, also
// after pruning and after a restart.
func TestLogBytes(t *testing.T) {
	t.Parallel()
	c := newClock()
	o := store.Options{FS: vfs.NewMem(), Dir: "db", Now: c.now, RetentionBytes: 1 << 40}
	s, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	const body = 5000
	text := func(i int) string { return fmt.Sprint(i) + strings.Repeat("x", body) }
	rows := func() (bytes, superseded int64) {
		for _, space := range []byte{store.SpaceEvent, store.SpaceListing, 'v'} {
			err := store.ScanRaw(s, space, func(key, value []byte) {
				bytes += int64(len(key) + len(value))
				if space == 'v' {
					superseded++
				}
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		return bytes, superseded
	}
	count := func(d time.Duration) (n, bytes, superseded int64) {
		t.Helper()
		if err := store.Compact(s); err != nil { // so that blocks have a size on disk
			t.Fatal(err)
		}
		retain(t, s, c, d)
		bytes, superseded = rows()
		return store.LogBytes(s), bytes, superseded
	}
	retain(t, s, c, 0)
	big := storetest.Records{}
	for i := range 2000 {
		big[fmt.Sprint("app.test.a/", i)] = storetest.Text("first")
	}
	imported(t, s, storetest.DID(1), big)
	imported(t, s, storetest.DID(2), storetest.Records{"app.test.a/0": storetest.Text(text(0))})
	if n, bytes, _ := count(time.Hour); n != bytes {
		t.Errorf("%d bytes, the rows have %d", n, bytes)
	}
	setStatus(t, s, storetest.DID(1), store.StatusDeactivated)
	setStatus(t, s, storetest.DID(1), store.StatusActive) // lists all records again
	if n, bytes, _ := count(time.Hour); n != bytes {
		t.Errorf("%d bytes after a relist, the rows have %d", n, bytes)
	}
	for i := range 500 {
		one(t, s, storetest.DID(2), "app.test.a/0", text(i+1))
	}
	n, bytes, superseded := count(time.Hour)
	mean := (n - bytes) / superseded
	if superseded != 500 || mean < 10 || mean > body {
		t.Errorf("%d bytes, the rows have %d, and %d superseded blocks count %d each", n, bytes, superseded, mean)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = storetest.Open(t, o)
	if again, _, _ := count(time.Minute); again != n {
		t.Errorf("%d bytes after a restart, %d before", again, n)
	}
	retain(t, s, c, retention/2) // a longer step is not counted
	retain(t, s, c, retention/2)
	if n, bytes, _ := count(2 * time.Hour); s.Tail() != s.Head()+1 || n != 0 || bytes != 0 {
		t.Errorf("%d bytes are left from %d to %d, the rows have %d", n, s.Tail(), s.Head(), bytes)
	}
}
