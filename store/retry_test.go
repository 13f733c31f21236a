package store_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
)

func putRetry(t testing.TB, s *store.Store, n int, due int64) error {
	t.Helper()
	did := storetest.DID(n)
	defer s.Lock(did)()
	r, err := s.RepoOrNew(did)
	if err != nil {
		return err
	}
	r.State, r.Retry.Next = store.StateResync, due
	b := s.NewBatch()
	b.ForgeRepo(&r)
	return b.CommitSync()
}

// TestRetryFront: the remembered front of the retry index hides no row, not even one that is due
// before all others, as after a step of the clock.
func TestRetryFront(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	for _, step := range []struct {
		n    int
		due  int64 // 0 takes the row out
		want int   // first repository that is due at 150, 0 for none
	}{
		{1, 100, 1},
		{2, 200, 1},
		{1, 0, 0},
		{3, 50, 3}, // before the front
		{3, 0, 0},
		{2, 0, 0}, // nothing at all
		{4, 140, 4},
		{4, 160, 0}, // put off
		{5, 150, 5},
	} {
		if err := putRetry(t, s, step.n, step.due); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the first read remembers the front
			dids, _, err := s.DueRetries(time.Unix(150, 0), 10)
			if err != nil || (len(dids) > 0) != (step.want != 0) || len(dids) > 0 && dids[0] != storetest.DID(step.want) {
				t.Errorf("after %+v: %v, %v", step, dids, err)
			}
		}
	}
}

// TestRetryFrontDuringScan: a row that comes while a scan runs, which may not see it, is not hidden by
// what the scan found.
func TestRetryFrontDuringScan(t *testing.T) {
	t.Parallel()
	if front := store.FrontAfter(200, 100); front > 100 {
		t.Errorf("the front is %d, and a row is due at 100", front)
	}
}

// TestRetryFrontRace: rows that are written while other goroutines read are not hidden by the
// front.
func TestRetryFrontRace(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	const writers, rows = 4, 200
	var g, looks errgroup.Group
	done := make(chan struct{})
	looks.Go(func() error {
		for {
			select {
			case <-done:
				return nil
			default:
			}
			if _, _, err := s.DueRetries(time.Unix(1, 0), 1); err != nil {
				return err
			}
		}
	})
	for w := range writers {
		g.Go(func() error {
			rng := rand.New(rand.NewPCG(1, uint64(w)))
			for i := range rows {
				if err := putRetry(t, s, 1+w*rows+i, 2+rng.Int64N(1000)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	close(done)
	if err := looks.Wait(); err != nil {
		t.Fatal(err)
	}
	if dids, _, err := s.DueRetries(time.Unix(2000, 0), 2*writers*rows); err != nil || len(dids) != writers*rows {
		t.Errorf("%d rows are due, want %d, %v", len(dids), writers*rows, err)
	}
}

// TestRetryAhead: a retry that a clock set while it was far ahead is due now; one that is due in
// weeks is not.
func TestRetryAhead(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	now := time.Unix(1_700_000_000, 0)
	for n, due := range map[int]time.Time{
		1: now.Add(-time.Hour),                       // due
		2: now.Add(store.RetryAheadMax),              // the longest delay
		3: now.Add(store.RetryAheadMax + 1e9),        // longer than any
		4: now.Add(365 * 24 * time.Hour),             // by a clock of next year
		5: now.Add(30 * 24 * time.Hour),              // deleted long ago
		6: now.Add(store.RetryAheadMax).Add(1 << 62), // no time at all
	} {
		if err := putRetry(t, s, n, due.Unix()); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		limit int
		want  []string
	}{
		{10, []string{storetest.DID(1), storetest.DID(3), storetest.DID(4), storetest.DID(6)}},
		{2, []string{storetest.DID(1), storetest.DID(3)}},
	} {
		dids, next, err := s.DueRetries(now, row.limit)
		if d := cmp.Diff(row.want, dids); d != "" || err != nil || !next.Equal(now.Add(30*24*time.Hour)) {
			t.Errorf("limit %d: next %v, %v\n%s", row.limit, next, err, d)
		}
		for _, did := range row.want {
			if r, err := s.Repo(did); err != nil || !store.IsDue(r.Due(), now) {
				t.Errorf("%s: not due by itself, %v", did, err)
			}
		}
	}
}
