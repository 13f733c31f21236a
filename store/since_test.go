package store_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"cistern/store"
	"cistern/store/storetest"
)

// timed returns the time of every event kept, hidden or not, by falling back on the rows.
func timed(t testing.TB, s *store.Store) (ids []uint64, times []int64) {
	t.Helper()
	_, decode := codec(t)
	err := store.ScanRaw(s, store.SpaceEvent, func(key, value []byte) {
		id, err := store.ParseEventKey(key)
		var e store.Entry
		if err := errors.Join(err, decode(value, &e)); err != nil {
			t.Fatal(err)
		}
		for i := range store.IDs(&e) {
			ids, times = append(ids, id+i), append(times, e.Time+int64(i))
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids, times
}

// compareSince compares FirstSince with a look at one event after the other.
func compareSince(t *testing.T, s *store.Store, rng *rand.Rand) {
	t.Helper()
	ids, times := timed(t, s)
	asked := []int64{math.MinInt64, -1, 0, math.MaxInt64}
	for _, at := range []uint64{s.Head() + 1, math.MaxUint64} {
		if us, err := s.TimeOf(at); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("event %d has the time %d (%v); the log ends at %d", at, us, err, s.Head())
		}
	}
	for i, us := range times {
		if ids[i] > s.Head() {
			continue
		}
		if got, err := s.TimeOf(ids[i]); err != nil || ids[i] >= s.Tail() && got != us {
			t.Errorf("event %d has the time %d (%v), want %d", ids[i], got, err, us)
		}
	}
	for _, us := range times {
		asked = append(asked, us, us+1, us-1, us+rng.Int64N(1000))
	}
	for _, us := range asked {
		want := s.Head() + 1
		for i := range ids {
			if times[i] >= us {
				want = ids[i]
				break
			}
		}
		got, err := s.FirstSince(us)
		if err != nil || got != want {
			t.Fatalf("since %d: event %d (%v), want %d; the log has %d to %d", us, got, err, want, s.Tail(), s.Head())
		}
		if _, err := s.ReadLog(t.Context(), got, 1, func(e *store.Event) error {
			if e.Time < us {
				t.Errorf("since %d: the event at %d is read", us, e.Time)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
}

// TestFirstSince: the search by time agrees with a scan, on logs of entries of every kind, with
// hidden events and pruned tails, also of an empty log.
func TestFirstSince(t *testing.T) {
	t.Parallel()
	for seed := range storetest.Seeds(20) {
		rng := rand.New(rand.NewPCG(seed, 3))
		c := newClock()
		s := storetest.Open(t, store.Options{Now: c.now})
		compareSince(t, s, rng)
		w := newWorld()
		for n := range 12 {
			did := storetest.DID(rng.IntN(6) + 1)
			switch kind := rng.IntN(4); {
			case w.records[did] == nil:
				w.importRepo(t, s, did, storetest.Random(rng, 1+rng.IntN(30)))
				if err := s.FlushImports(); err != nil {
					t.Fatal(err)
				}
			case kind == 0:
				edit(t, s, did, func(b *store.Batch, r *store.Repo) error { b.Account(r); b.Identity(r); return nil })
			case kind == 1:
				edit(t, s, did, func(b *store.Batch, r *store.Repo) error {
					r.Status = store.Status(rng.IntN(2)) * store.StatusDeactivated
					return nil
				})
			default:
				w.change(t, s, rng, did, true)
			}
			c.tick(time.Duration(rng.IntN(40)) * time.Microsecond) // also shorter than the entries
			if n%4 == 3 {
				compareSince(t, s, rng)
			}
		}
		storetest.Head(t, s)
		for s.Tail() <= s.Head() {
			if err := store.Prune(t.Context(), s, s.Tail()+1+rng.Uint64N(40)); err != nil {
				t.Fatal(err)
			}
			compareSince(t, s, rng)
		}
	}
}
