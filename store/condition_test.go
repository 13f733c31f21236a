package store_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
)

// repoEvents returns the repo events from an id on, as text, by DID.
func repoEvents(t testing.TB, s *store.Store, from uint64) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for cursor := max(from, s.Tail()); cursor <= s.Head(); {
		next, err := s.ReadLog(t.Context(), cursor, 100, func(e *store.Event) error {
			if e.Kind == store.KindRepo {
				out[e.DID] = append(out[e.DID], conditionText(e.Condition, e.Reason, e.Status, e.Rev))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		cursor = next
	}
	return out
}

func conditionText(c store.Condition, kind store.ErrorKind, status store.Status, rev string) string {
	text := c.String()
	switch c {
	case store.ConditionFailing:
		text += " " + kind.String()
	case store.ConditionGone:
		text += " " + status.String()
	}
	return text + " " + rev
}

// conditionOf returns what consumers are to know of a repository.
func conditionOf(r *store.Repo) string {
	c := store.ConditionPending
	switch {
	case r.Tracked == store.Untracked:
		c = store.ConditionUntracked
	case r.Status.Hidden() || r.State == store.StateGone:
		c = store.ConditionGone
	case r.State == store.StateSynced || r.State == store.StateDraining:
		c = store.ConditionSynced
	case r.Retry.Kind != store.NoError:
		c = store.ConditionFailing
	}
	return conditionText(c, r.Retry.Kind, r.Status, "")
}

// TestConditions makes random changes of all kinds to some repositories, all of them by the
// transitions of the state machine. A consumer of repo events knows the condition of each
// repository, is told nothing twice, and nothing of a repository without a result.
func TestConditions(t *testing.T) {
	t.Parallel()
	for seed := range storetest.Seeds(40) {
		rng := rand.New(rand.NewPCG(seed, 9))
		c := newClock()
		s := storetest.Open(t, store.Options{Now: c.now, SmallBytes: rng.Int64N(2) << 20})
		for n := range 150 {
			did := storetest.DID(1 + rng.IntN(4))
			conditionStep(t, s, rng, did, n)
			if rng.IntN(20) == 0 {
				prune(t, s, c.ago(time.Duration(rng.IntN(10))*time.Second))
			}
			c.tick(time.Second)
		}
		events := repoEvents(t, s, 0)
		for n := range 4 {
			did := storetest.DID(n + 1)
			row, err := s.RepoOrNew(did)
			if err != nil {
				t.Fatal(err)
			}
			told := events[did]
			for i, text := range told[min(1, len(told)):] {
				if word, rev := split(text); word == first(told[i]) {
					t.Errorf("seed %d: %s: %q is told twice, at %s", seed, did, word, rev)
				}
			}
			want := conditionOf(&row)
			if len(told) == 0 || !row.Known() {
				continue // nothing was told, or nothing is left of the log or the row
			}
			if got := first(told[len(told)-1]); got != want && (row.Told != 0 || got != "untracked ") {
				t.Errorf("seed %d: %s is %s (%+v), and the log tells %q", seed, did, want, row, told)
			}
		}
	}
}

// split cuts the rev from what was told.
func split(text string) (word, rev string) {
	for i := len(text) - 1; ; i-- {
		if text[i] == ' ' {
			return text[:i+1], text[i+1:]
		}
	}
}

func first(text string) string { word, _ := split(text); return word }

// conditionStep makes one random change of a repository. A change that its state does not allow is
// refused, and tells nothing.
func conditionStep(t *testing.T, s *store.Store, rng *rand.Rand, did string, n int) {
	t.Helper()
	row, err := s.RepoOrNew(did)
	if err != nil {
		t.Fatal(err)
	}
	if row.State == store.StatePending && row.Tracked != store.Untracked && rng.IntN(3) == 0 {
		if row.Ordinal == 0 && !row.Status.Hidden() {
			im := storetest.Random(rng, rng.IntN(3)).Import(row, storetest.Rev(n+1))
			im.Done = func(store.Repo, error) {}
			if err := s.Import(t.Context(), im); err != nil {
				t.Fatal(err)
			}
			if err := s.FlushImports(); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	status := store.Status(1 + rng.IntN(6))
	retry := store.Retry{Kind: store.ErrorKind(1 + rng.IntN(3)), Count: uint32(n), Next: 1 << 40, Since: int64(n)}
	steps := []func(b *store.Batch, r *store.Repo){
		func(b *store.Batch, r *store.Repo) { b.Track(r, store.ByOperator, store.PriorityOperator) },
		func(b *store.Batch, r *store.Repo) { b.Enqueue(r, store.PriorityRetry) },
		func(b *store.Batch, r *store.Repo) { b.Defer(r, retry) },
		func(b *store.Batch, r *store.Repo) { b.Complete(r) },
		func(b *store.Batch, r *store.Repo) { b.Hide(r, status, store.OriginHost, store.Retry{}) },
		func(b *store.Batch, r *store.Repo) { b.Show(r); b.Enqueue(r, store.PriorityRetry) },
		func(b *store.Batch, r *store.Repo) { b.Untrack(r) },
	}
	step := steps[rng.IntN(len(steps))]
	head := s.Head()
	if rng.IntN(15) == 0 && row.Records == 0 && row.Known() {
		dropRepo(t, s, did, nil, true)
	} else if err := putBy(s, did, step); err != nil && s.Head() != head {
		t.Errorf("a refused change adds to the log: %v", err)
	}
}

// TestTransitionsTell: every transition from every state is told if it changes the condition, in
// the batch that makes it.
func TestTransitionsTell(t *testing.T) {
	t.Parallel()
	for name, make := range transitions {
		for _, from := range allStates {
			s, did := inState(t, from)
			if name == "Track" && from != 0 && from != store.StateIdle {
				if err := putBy(s, did, func(b *store.Batch, r *store.Repo) { b.Untrack(r) }); err != nil {
					t.Fatal(err)
				}
			}
			before, head := row0(t, s, did), s.Head()
			if err := putBy(s, did, make); err != nil {
				continue
			}
			after := row0(t, s, did)
			var want []string
			was, is := conditionOf(&before), conditionOf(&after)
			if was != is && before.Known() {
				want = []string{is + after.Rev}
			}
			if name == "Hide" && from == 0 { // of an account that is not followed
				want = nil
			}
			if d := cmp.Diff(want, repoEvents(t, s, head+1)[did]); d != "" {
				t.Errorf("%s from %s (-want +got):\n%s", name, from, d)
			}
		}
	}
}

func row0(t testing.TB, s *store.Store, did string) store.Repo {
	t.Helper()
	r, err := s.RepoOrNew(did)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestFailingOnce: attempts that fail alike are told once, a failure of another kind again, with
// the times of the row.
func TestFailingOnce(t *testing.T) {
	t.Parallel()
	s, did := inState(t, store.StateSynced)
	rev := row0(t, s, did).Rev
	var last store.Event
	for n, kind := range []store.ErrorKind{store.Transport, store.Transport, store.Transport, store.Generic, store.Generic} {
		retry := store.Retry{Kind: kind, Count: uint32(n + 1), Since: 1_700_000_000, Next: 1_700_000_060 + int64(n)}
		for _, step := range []func(b *store.Batch, r *store.Repo){
			func(b *store.Batch, r *store.Repo) { b.Defer(r, retry) },
			func(b *store.Batch, r *store.Repo) { b.Enqueue(r, store.PriorityRetry) },
		} {
			if err := putBy(s, did, step); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := putBy(s, did, func(b *store.Batch, r *store.Repo) { b.Complete(r) }); err != nil {
		t.Fatal(err)
	}
	want := []string{"synced " + rev, "failing transport " + rev, "failing generic " + rev, "synced " + rev}
	if d := cmp.Diff(want, repoEvents(t, s, 0)[did]); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if _, err := s.ReadLog(t.Context(), s.Head()-1, 1, func(e *store.Event) error { last = *e; return nil }); err != nil {
		t.Fatal(err)
	}
	if last.Since != 1_700_000_000 || last.NextLook != 1_700_000_063 {
		t.Errorf("%+v", last)
	}
}

// TestSyncedAfterImport: that a repository is synced follows the records of its import, at the rev
// of its copy; that it was found, and dropped before its first result, is not told.
func TestSyncedAfterImport(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	add(t, s, storetest.DID(2))
	dropRepo(t, s, storetest.DID(2), nil, true)
	add(t, s, storetest.DID(3))
	if s.Head() != 0 {
		t.Errorf("%v", repoEvents(t, s, 0))
	}
	did := storetest.DID(1)
	imported(t, s, did, storetest.Records{"app.test.a/1": storetest.Text("x"), "app.test.b/1": storetest.Text("y")})
	var kinds []string
	if _, err := s.ReadLog(t.Context(), 0, 100, func(e *store.Event) error {
		kinds = append(kinds, fmt.Sprint(e.Kind, e.Condition, e.Rev))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	rev := row0(t, s, did).Rev
	if want := []string{"1 " + rev, "1 " + rev, "4 synced" + rev}; !slices.Equal(kinds, want) {
		t.Errorf("%q, want %q", kinds, want)
	}
}
