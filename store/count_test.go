package store_test

import (
	"testing"

	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
)

// TestCountsBehind: repositories known to have a later rev, and those that do not agree with their
// filter yet, are counted, also after the store is opened again.
func TestCountsBehind(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	open := func(readOnly bool) *store.Store {
		t.Helper()
		s, err := store.Open(store.Options{FS: fs, Dir: "db", ReadOnly: readOnly})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open(false)
	version := setFilter(t, s, only("app.test.a", ""))
	for i, edit := range []func(*store.Repo){
		func(*store.Repo) {},
		func(r *store.Repo) { r.SeenRev = storetest.Rev(9) },
		func(r *store.Repo) { r.SeenRev, r.State = storetest.Rev(9), store.StateGone },
		func(r *store.Repo) { r.SeenRev, r.State = storetest.Rev(9), store.StateIdle },
		func(r *store.Repo) { r.SeenRev, r.Tracked = storetest.Rev(9), store.Untracked },
		func(r *store.Repo) { r.SeenRev = "" },
		func(r *store.Repo) { r.Filter, r.Lacks = version, true },
		func(r *store.Repo) { r.Filter, r.Sweep, r.SeenRev = version, true, storetest.Rev(9) },
		// an untracked repository is not visited again
		func(r *store.Repo) { r.Filter, r.Sweep, r.Tracked = version, true, store.Untracked },
	} {
		did := storetest.DID(i + 1)
		importBy(t, s, did, storetest.Records{"app.test.a/1": storetest.Text("x")}, 0, storetest.Rev(1))
		amend(t, s, did, storetest.Rev(2), edit)
	}
	counts := func(s *store.Store) map[string]int64 {
		t.Helper()
		storetest.Check(t, s)
		c := s.Counts()
		if c["behind"] != 2 || c["lacking"] != 2 {
			t.Errorf("%d are behind, %d lack", c["behind"], c["lacking"])
		}
		return c
	}
	want := counts(s)
	for _, readOnly := range []bool{true, false, true} {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(readOnly)
		if d := cmp.Diff(want, counts(s)); d != "" {
			t.Errorf("read only: %v (-want +got):\n%s", readOnly, d)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
