package refilter_test

import (
	"testing"

	"cistern/backfill/refilter"
	"cistern/filter"
	"cistern/store"
	"cistern/store/storetest"
)

// TestForgetsByFilterInForce: a large repository that is being forgotten stays if the filter is
// changed meanwhile, or if a commit was seen that may be a reason to follow it; but not if the filter
// excludes it.
func TestForgetsByFilterInForce(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	var dids []string
	for i := range 5 {
		dids = append(dids, storetest.DID(1+i))
		s.hold(dids[i], many(1500))
	}
	s.filter(filter.Config{Excludes: dids[:2]})
	version := s.store.Filter().Version
	forgetting := func(did string) *refilter.Forget {
		return &refilter.Forget{Store: s.store, DID: did, Version: version, Due: func(*store.Repo) (bool, error) { return true, nil }}
	}
	goOn := map[string]func() (bool, error){}
	for _, did := range dids[:4] {
		begun, rest, err := forgetting(did).Begin()
		if err != nil || !begun {
			t.Fatalf("%v, %v", begun, err)
		}
		if row := s.row(did); !row.Torn || row.State != store.StatePending {
			t.Errorf("the row of one that is being forgotten is %s, torn %v", row.State, row.Torn)
		}
		goOn[did] = rest
	}
	goes := func(did string) bool {
		t.Helper()
		gone, err := goOn[did]()
		if err != nil {
			t.Fatal(err)
		}
		return gone
	}
	seen := func(_ *store.Batch, r *store.Repo) { r.SeenRev = "7zzzzzzzzzzzz" }
	s.change(dids[0], seen)
	s.change(dids[2], seen)
	if !goes(dids[0]) {
		t.Error("a commit that was seen keeps an excluded repository")
	}
	if goes(dids[2]) {
		t.Error("a commit that was seen does not keep a repository")
	}
	if !goes(dids[3]) {
		t.Error("a repository of which nothing was seen is kept")
	}
	s.filter(filter.Config{})
	if goes(dids[1]) {
		t.Error("a repository that is no longer excluded is forgotten")
	}
	if begun, _, err := forgetting(dids[4]).Begin(); begun || err != nil {
		t.Errorf("by a filter that is no longer in force: %v, %v", begun, err)
	}
}

// TestForgetAgain: a repository whose row is a task's goes by what the task says at each step, and the
// task is told.
func TestForgetHeld(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	did := storetest.DID(1)
	for _, due := range []bool{false, true} {
		s.hold(did, many(1500))
		asked, gone := 0, 0
		f := &refilter.Forget{Store: s.store, DID: did, Version: s.store.Filter().Version, Held: true, Gone: func() { gone++ },
			Due: func(*store.Repo) (bool, error) { asked++; return asked < 3 || due, nil }}
		wait, err := f.Run(t.Context())
		if err != nil || (wait != nil) != due {
			t.Fatalf("due %v: forgotten %v (%v)", due, wait != nil, err)
		}
		_, err = s.store.Repo(did)
		if known := err == nil; known == due || gone != map[bool]int{true: 1}[due] {
			t.Errorf("due %v: known %v (%v), told %d times", due, known, err, gone)
		}
		if due {
			if err := wait(); err != nil {
				t.Error(err)
			}
			continue
		}
		s.change(did, func(b *store.Batch, r *store.Repo) { b.Untrack(r) })
		s.change(did, func(b *store.Batch, r *store.Repo) {
			if err := b.Wipe(r); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestCursorOfAChangedFilter: a pass that writes its cursor after another filter came into force changes
// nothing, and is not over.
func TestCursorOfAChangedFilter(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.filter(filter.Config{Collections: []string{posts}})
	for _, drop := range []bool{false, true} {
		at := store.RefilterCursor{Begun: true, After: storetest.DID(1)} // of the pass before
		ended, err := s.run.Move(at, "did:plc:z", drop)
		cursor, running, cerr := s.run.Progress()
		if ended || err != nil || cerr != nil || cursor != "" || !running {
			t.Errorf("drop %v: ended %v (%v), running %v from %q (%v)", drop, ended, err, running, cursor, cerr)
		}
	}
}
