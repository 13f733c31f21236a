package store_test

import (
	"errors"
	"testing"
	"time"

	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
)

// dropRepo deletes the shown records of a repository, and drops it in the same batch or in the
// next.
func dropRepo(t testing.TB, s *store.Store, did string, ops []store.Op, together bool) {
	t.Helper()
	defer s.Lock(did)()
	r, err := s.Repo(did)
	if err != nil {
		t.Fatal(err)
	}
	b := s.NewBatch()
	if r.Ordinal != 0 {
		if err := b.Apply(&r, false, r.Rev, ops); err != nil {
			t.Fatal(err)
		}
	}
	if !together {
		b.ForgeRepo(&r)
		if err := b.CommitSync(); err != nil {
			t.Fatal(err)
		}
		b = s.NewBatch()
	}
	if err := b.DropRepo(&r); err != nil {
		t.Fatal(err)
	}
	if err := b.CommitSync(); err != nil {
		t.Fatal(err)
	}
	if r.Known() {
		t.Error("the row is known")
	}
}

// TestDropShown: a repository that shows records is not dropped, as readers would not learn of
// their end.
func TestDropShown(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	imported(t, s, storetest.DID(1), small())
	r, err := s.Repo(storetest.DID(1))
	if err != nil {
		t.Fatal(err)
	}
	b := s.NewBatch()
	defer b.Discard()
	if err := b.DropRepo(&r); err == nil {
		t.Error("dropped")
	}
}

// TestDropRepo: nothing is left of a dropped repository but its deletions in the log, also when it
// is tracked again, until the log is pruned.
func TestDropRepo(t *testing.T) {
	t.Parallel()
	for _, together := range []bool{false, true} {
		s := storetest.Open(t, store.Options{})
		empty := s.Counts()
		did, m := storetest.DID(1), storetest.Records{"app.test.a/1": storetest.Text("one"), "app.test.b/1": storetest.Text("one"), "no path": storetest.Text("x")}
		importBy(t, s, did, m, setFilter(t, s, only("app.test.a", "all")), storetest.Rev(1))
		amend(t, s, did, storetest.Rev(2), func(*store.Repo) {}, put("app.test.a/2", "two"), drop("app.test.a/1"), put("app.test.a/3", "three"))

		r, err := s.Repo(did)
		if err != nil {
			t.Fatal(err)
		}
		b := s.NewBatch()
		if err := b.DropRepo(&r); err == nil {
			t.Error("dropped with records")
		}
		b.Discard()
		dropRepo(t, s, did, []store.Op{drop("app.test.a/2"), drop("app.test.a/3")}, together)
		if _, err := s.Repo(did); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("the row: %v", err)
		}
		storetest.Check(t, s)
		want := empty
		want["events"] = 8 // also that it is synced and untracked
		if d := cmp.Diff(want, s.Counts()); d != "" {
			t.Errorf("counts (-want +got):\n%s", d)
		}
		deletions := []string{"delete app.test.a/1 ", "delete app.test.a/2 ", "delete app.test.a/3 "}
		if d := cmp.Diff(deletions, spoken(t, s, 1)); d != "" {
			t.Errorf("events (-want +got):\n%s", d)
		}
		importBy(t, s, did, storetest.Records{"app.test.a/9": storetest.Text("new")}, 1, storetest.Rev(3))
		storetest.Check(t, s)
		if d := cmp.Diff(append(deletions, "create app.test.a/9 \xa1dtextcnew"), spoken(t, s, 1)); d != "" {
			t.Errorf("events, tracked again (-want +got):\n%s", d)
		}
		for range 2 { // the second time the tail stands where the drop was
			prune(t, s, time.Now().Add(time.Hour))
		}
		n := 0
		if err := store.ScanRaw(s, store.SpaceDropped, func(_, _ []byte) { n++ }); err != nil || n != 0 {
			t.Errorf("%d dropped ordinals are remembered, %v", n, err)
		}
	}
}

// TestDropEveryState: the queues, the buffer and the gauges forget a repository, in whatever state
// it is.
func TestDropEveryState(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	empty := s.Counts()
	var err error
	for i, edit := range []func(b *store.Batch, r *store.Repo){
		func(_ *store.Batch, r *store.Repo) { r.State = store.StatePending },
		func(b *store.Batch, r *store.Repo) {
			r.State = store.StatePending
			b.Buffer(r, storetest.Rev(5), []byte("a commit"))
		},
		func(_ *store.Batch, r *store.Repo) {
			r.State, r.Retry = store.StateResync, store.Retry{Kind: store.Transport, Next: 5}
		},
		func(_ *store.Batch, r *store.Repo) { r.State, r.Retry.Next = store.StateGone, 6 },
		func(_ *store.Batch, r *store.Repo) { r.State, r.SeenRev = store.StateSynced, storetest.Rev(9) },
	} {
		did := storetest.DID(i + 1)
		r := add(t, s, did)
		if r.Pending.Host, err = s.HostID("pds.test"); err != nil {
			t.Fatal(err)
		}
		b := s.NewBatch()
		edit(b, &r)
		b.ForgeRepo(&r)
		if err := b.CommitSync(); err != nil {
			t.Fatal(err)
		}
		storetest.Check(t, s)
		dropRepo(t, s, did, nil, true)
		storetest.Check(t, s)
		if i > 1 {
			empty["events"] += 2 // that it is failing, gone or synced, and untracked
		}
		if d := cmp.Diff(empty, s.Counts()); d != "" {
			t.Errorf("counts (-want +got):\n%s", d)
		}
		if dids, _, err := s.DueRetries(time.Now(), 10); len(dids) != 0 || err != nil {
			t.Errorf("due: %v, %v", dids, err)
		}
	}
	// A copy that was in flight.
	did := storetest.DID(9)
	im := storetest.Records{"app.test.a/1": storetest.Text("x")}.Import(add(t, s, did), storetest.Rev(1))
	var got error
	im.Done = func(_ store.Repo, err error) { got = err }
	if err := s.Import(t.Context(), im); err != nil {
		t.Fatal(err)
	}
	dropRepo(t, s, did, nil, true)
	if err := s.FlushImports(); err != nil || !errors.Is(got, store.ErrStale) {
		t.Errorf("done with %v, %v", got, err)
	}
}
