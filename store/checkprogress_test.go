package store_test

import (
	"math/rand/v2"
	"testing"

	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestCheckProgress: the progress of a check never goes back, ends at its total, and names each part. No
// quarter of it passes at once. TestCheckSteps compares the work itself.
func TestCheckProgress(t *testing.T) {
	t.Parallel()
	for seed := range storetest.Seeds(3) {
		s := storetest.Open(t, store.Options{FS: vfs.NewMem(), Dir: "db"})
		a := &storetest.Author{T: t, Store: s, Rand: rand.New(rand.NewPCG(uint64(seed), 9)), Repos: 20}
		for range 400 {
			a.Step()
		}
		var last store.CheckProgress
		parts, most := map[string]bool{}, int64(0)
		_, err := s.CheckWithProgress(t.Context(), func(d string) { t.Error(d) }, func(p store.CheckProgress) {
			if p.Done < last.Done || last.Total != 0 && p.Total != last.Total || p.Done > p.Total {
				t.Errorf("seed %d: %+v after %+v", seed, p, last)
			}
			if last.Total != 0 {
				most = max(most, p.Done-last.Done)
			}
			last = p
			parts[p.Part] = true
		})
		if err != nil {
			t.Fatal(err)
		}
		if last.Done != last.Total || last.Total == 0 || last.Repos == 0 || !parts["records"] || !parts["events"] || most > last.Total/4 {
			t.Errorf("seed %d: ends with %+v, parts %v, largest step %d", seed, last, parts, most)
		}
	}
}

// TestCheckSteps: the work that Check expects of each of its steps is that of the rows which the store
// has, counted here, and the work that the step reports while it runs. A log of few events is counted
// exactly, and a longer one estimated by samples.
func TestCheckSteps(t *testing.T) {
	t.Parallel()
	for seed := range storetest.Seeds(3) {
		s := storetest.Open(t, store.Options{FS: vfs.NewMem(), Dir: "db"})
		a := &storetest.Author{T: t, Store: s, Rand: rand.New(rand.NewPCG(uint64(seed), 9)), Repos: 20}
		for s.Head() == 0 {
			a.Step()
		}
		if s.Head() <= 64 {
			wantSteps(t, s, 1.01)
		}
		for range 400 {
			a.Step()
		}
		// Rows of repositories that were dropped are not in the counters.
		if err := s.CollectGarbage(t.Context(), func(int64, int64) {}); err != nil {
			t.Fatal(err)
		}
		wantSteps(t, s, 3)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// wantSteps compares the steps of Check with the rows of the store. Those that depend on the number of
// entries in the log may be off by a factor.
func wantSteps(t *testing.T, s *store.Store, factor float64) {
	t.Helper()
	rows := func(space byte) (n int64) {
		store.ScanRaw(s, space, func(_, _ []byte) { n++ })
		return n
	}
	repos, owners, collections := rows('s'), rows('o'), rows('d')
	entries, events := rows('e'), int64(s.Head()+1-s.Tail())
	const near = 1.1
	steps, err := s.CheckSteps(t.Context(), func(d string) { t.Error(d) })
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		part    string
		counted int64 // work
		factor  float64
	}{
		{"repositories", repos * store.CheckRepoCost, near},
		{"owners", owners * store.CheckOwnerCost, near},
		{"records", owners*store.CheckOwnedCost + (rows('r')+rows('b'))*store.CheckRecordCost, near},
		// It seeks the first row of each repository in several keyspaces, some of which may have none.
		{"leftovers", owners * store.CheckStrayCost, 3},
		{"collections", collections * store.CheckCollectionCost, near},
		{"totals", collections*store.CheckCollectionCost + events*store.CheckTotalCost + entries*store.CheckTotalEntryCost, factor},
		{"events", events*store.CheckEventCost + entries*store.CheckEntryCost, factor},
		{"postings", events*store.CheckPostingCost + entries*store.CheckPostingEntryCost, factor},
	} {
		if i >= len(steps) || steps[i].Part != want.part {
			t.Fatalf("the steps are %+v, want %s as number %d", steps, want.part, i)
		}
		for what, work := range map[string]int64{"expected": steps[i].Work, "reported": steps[i].Worked} {
			if f := float64(work) / float64(want.counted); want.counted > 0 && (f > want.factor || f < 1/want.factor) {
				t.Errorf("%s: work %d is %s, %d counted by the rows", want.part, work, what, want.counted)
			}
		}
	}
	if n := len(steps); n != 8 {
		t.Errorf("%d steps have work: %+v", n, steps)
	}
}
