package store_test

import (
	"os"
	"strings"
	"testing"

	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// transitions has each transition by name, as a caller makes it.
var transitions = map[string]func(b *store.Batch, r *store.Repo){
	"Track":   func(b *store.Batch, r *store.Repo) { b.Track(r, store.ByNetwork, store.PriorityDiscovery) },
	"Enqueue": func(b *store.Batch, r *store.Repo) { b.Enqueue(r, store.PriorityRetry) },
	"Defer": func(b *store.Batch, r *store.Repo) {
		b.Defer(r, store.Retry{Kind: store.Generic, Count: 1, Next: 1 << 40})
	},
	"Complete": func(b *store.Batch, r *store.Repo) { b.Complete(r) },
	"Hide":     func(b *store.Batch, r *store.Repo) { b.Hide(r, store.StatusSuspended, store.OriginHost, store.Retry{}) },
	"Untrack":  func(b *store.Batch, r *store.Repo) { b.Untrack(r) },
}

// inState returns a store with one repository in a state, with a copy if that state needs one.
func inState(t *testing.T, state store.State) (s *store.Store, did string) {
	t.Helper()
	s, err := store.Open(store.Options{Dir: "db", FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		storetest.Check(t, s)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	did = storetest.DID(1)
	if state == 0 {
		return s, did
	}
	edit := func(change func(b *store.Batch, r *store.Repo)) (row store.Repo) {
		t.Helper()
		if err := putBy(s, did, func(b *store.Batch, r *store.Repo) { change(b, r); row = *r }); err != nil {
			t.Fatal(err)
		}
		return row
	}
	row := edit(func(b *store.Batch, r *store.Repo) { b.Track(r, store.ByOperator, store.PriorityOperator) })
	im := storetest.Records{"app.test.a/1": storetest.Text("x")}.Import(row, storetest.Rev(1))
	im.Done = func(_ store.Repo, err error) {
		if err != nil {
			t.Error(err)
		}
	}
	if err := s.Import(t.Context(), im); err != nil {
		t.Fatal(err)
	}
	if err := s.FlushImports(); err != nil {
		t.Fatal(err)
	}
	if state == store.StateDraining {
		edit(func(b *store.Batch, r *store.Repo) {
			b.Enqueue(r, store.PriorityRetry)
			if !b.Buffer(r, storetest.Rev(2), []byte("a commit")) {
				t.Fatal("not buffered")
			}
		})
	}
	if state != store.StateSynced {
		edit(func(b *store.Batch, r *store.Repo) { storetest.Reach(b, r, state) })
	}
	return s, did
}

// putBy changes and writes a row by UpdateRepo, as all callers do.
func putBy(s *store.Store, did string, change func(b *store.Batch, r *store.Repo)) error {
	wait, err := s.UpdateRepo(did, func(b *store.Batch, r *store.Repo) error {
		change(b, r)
		b.PutRepo(r)
		return nil
	})
	if err == nil {
		err = wait()
	}
	return err
}

var allStates = []store.State{0, store.StatePending, store.StateSynced, store.StateResync, store.StateGone, store.StateIdle, store.StateDraining}

// TestTransitions makes each transition from each state: the transitions of the table lead where it
// states, and leave a store in which Check finds no difference; all others are refused, and change
// nothing.
func TestTransitions(t *testing.T) {
	t.Parallel()
	drawn := map[store.Arrow]bool{}
	for _, a := range store.Arrows() {
		drawn[a] = true
	}
	met := map[store.Arrow]bool{}
	for name, make := range transitions {
		for _, from := range allStates {
			s, did := inState(t, from)
			before, err := s.RepoOrNew(did)
			if err != nil || before.State != from {
				t.Fatalf("it is %s, want %s (%v)", before.State, from, err)
			}
			// a row that is not followed
			if name == "Track" && from != 0 && from != store.StateIdle {
				if err := putBy(s, did, func(b *store.Batch, r *store.Repo) { b.Untrack(r) }); err != nil {
					t.Fatal(err)
				}
				if before, _ = s.Repo(did); before.State != from {
					continue // no such row
				}
			}
			err = putBy(s, did, make)
			after, rerr := s.RepoOrNew(did)
			if rerr != nil {
				t.Fatal(rerr)
			}
			arrow := store.Arrow{Name: name, From: from, To: after.State}
			switch allowed := reachable(drawn, name, from); {
			case err == nil && !drawn[arrow]:
				t.Errorf("%s leads from %s to %s, which is not drawn", name, from, after.State)
			case err == nil:
				met[arrow] = true
				if after.Attempt == before.Attempt && from != 0 && name != "Defer" && name != "Complete" {
					t.Errorf("%s from %s: the attempt is %d as before", name, from, after.Attempt)
				}
			// of a repository without a copy, or of one that is followed
			case allowed && name != "Complete":
				t.Errorf("%s from %s is refused: %v", name, from, err)
			case after.State != before.State || after.Attempt != before.Attempt:
				t.Errorf("%s from %s is refused (%v), and left %s, attempt %d", name, from, err, after.State, after.Attempt)
			}
		}
	}
	for a := range drawn {
		if !met[a] && !elsewhere[a] {
			t.Errorf("%s from %s to %s is drawn, and was not made", a.Name, a.From, a.To)
		}
	}
}

// elsewhere has the arrows that need more than a state: tests of their callers make them.
var elsewhere = map[store.Arrow]bool{
	// a deletion that is being confirmed
	{Name: "Track", From: store.StatePending, To: store.StatePending}:     true,
	{Name: "Complete", From: store.StatePending, To: store.StateDraining}: true, // inState makes it
	// the buffer has to be taken first
	{Name: "Complete", From: store.StateDraining, To: store.StateSynced}: true,
	// the account is shown first
	{Name: "Untrack", From: store.StateGone, To: store.StateIdle}: true,
}

func reachable(drawn map[store.Arrow]bool, name string, from store.State) bool {
	for a := range drawn {
		if a.Name == name && a.From == from {
			return true
		}
	}
	return false
}

// TestPutRepoRefuses: a row whose state was assigned by hand, or that contradicts its state, is not
// written.
func TestPutRepoRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		from store.State
		do   func(r *store.Repo)
		says string
	}{
		"complete without a fetch":    {store.StateGone, func(r *store.Repo) { r.State = store.StateSynced }, "no transition leads from gone to synced"},
		"an unknown one is idle":      {0, func(r *store.Repo) { r.State = store.StateIdle }, "no transition leads from unknown to idle"},
		"no state":                    {0, func(*store.Repo) {}, "is in no state"},
		"a queue and a time":          {store.StatePending, func(r *store.Repo) { r.Retry.Next = 1 }, "is pending and has a time"},
		"complete and a time":         {store.StateSynced, func(r *store.Repo) { r.Retry.Next = 1 }, "is complete and has a time"},
		"complete and not followed":   {store.StateSynced, func(r *store.Repo) { r.Tracked = store.Untracked }, "is complete and not followed"},
		"complete and nothing held":   {store.StateSynced, func(r *store.Repo) { r.Ordinal = 0 }, "is complete and has no data"},
		"waits without a time":        {store.StateResync, func(r *store.Repo) { r.Retry.Next = 0 }, "has no time"},
		"idle and followed":           {store.StateIdle, func(r *store.Repo) { r.Tracked = store.BySignal }, "is idle and followed"},
		"idle and a time":             {store.StateIdle, func(r *store.Repo) { r.Retry.Next = 1 }, "is idle and has a time"},
		"draining with nothing to do": {store.StatePending, func(r *store.Repo) { r.State = store.StateDraining }, "without buffered commits"},
	} {
		s, did := inState(t, c.from)
		before, err := s.RepoOrNew(did)
		if err != nil {
			t.Fatal(err)
		}
		err = putBy(s, did, func(_ *store.Batch, r *store.Repo) { c.do(r) })
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want an error with %q", name, err, c.says)
		}
		if after, err := s.RepoOrNew(did); err != nil || after.State != before.State || after.Retry != before.Retry {
			t.Errorf("%s: was written (%v)", name, err)
		}
	}
}

// TestUpdateOrder: locks are taken in one order everywhere; otherwise two updates could wait for
// each other.
func TestUpdateOrder(t *testing.T) {
	t.Parallel()
	s, did := inState(t, store.StateSynced)
	for _, dids := range [][]string{{did, did}, {storetest.DID(2), did}} {
		if _, err := s.Update(dids, func(*store.Batch, []store.Repo) error { return nil }); err == nil {
			t.Errorf("%v is taken", dids)
		}
	}
}

// TestUpdateHolds: while rows are changed, they are locked, and no other filter comes into force.
func TestUpdateHolds(t *testing.T) {
	t.Parallel()
	s, did := inState(t, store.StateSynced)
	dids := []string{did, storetest.DID(2)}
	_, err := s.Update(dids, func(*store.Batch, []store.Repo) error {
		if !s.Locked(dids[0]) || !s.Locked(dids[1]) || !s.FilterHeld() {
			t.Errorf("locked: %v, %v; the filter is held: %v", s.Locked(dids[0]), s.Locked(dids[1]), s.FilterHeld())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.Locked(dids[0]) || s.Locked(dids[1]) || s.FilterHeld() {
		t.Error("an update that has ended holds locks")
	}
}

// TestDrawing: the drawing of the states in the documentation is that of the code.
func TestDrawing(t *testing.T) {
	t.Parallel()
	const name = "../docs/architecture.md"
	const begin, end = "```mermaid\nstateDiagram-v2\n", "```\n"
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), begin)
	was, after, ends := strings.Cut(rest, end)
	if !ok || !ends {
		t.Fatalf("%s has no drawing of the states", name)
	}
	var is strings.Builder
	for _, a := range store.Arrows() {
		from := a.From.String()
		if a.From == 0 {
			from = "[*]"
		}
		is.WriteString("    " + from + " --> " + a.To.String() + ": " + a.Name + "\n")
	}
	if was == is.String() {
		return
	}
	if !*update {
		t.Fatalf("the drawing in %s is not that of the code; go test ./store -run TestDrawing -update rewrites it:\n%s", name, is.String())
	}
	if err := os.WriteFile(name, []byte(before+begin+is.String()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
