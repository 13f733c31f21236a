package store_test

import (
	"errors"
	"testing"
	"time"

	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestOrdinalsReturned: a group of one repository takes one ordinal, not its whole lease; a trickle
// of small groups would otherwise use up all of them within a year. None is assigned twice.
func TestOrdinalsReturned(t *testing.T) {
	t.Parallel()
	o := store.Options{FS: vfs.NewMem(), Dir: "db", GroupAge: time.Hour}
	s, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld()
	n, last := 0, store.Ordinal(0)
	group := func(want store.Ordinal) {
		t.Helper()
		n++
		did := storetest.DID(n)
		w.importRepo(t, s, did, storetest.Records{"app.test.a/1": storetest.Text(did)})
		if err := s.FlushImports(); err != nil {
			t.Fatal(err)
		}
		r, err := s.Repo(did)
		if err != nil || r.Ordinal != want {
			t.Errorf("group %d: ordinal %d, want %d, %v", n, r.Ordinal, want, err)
		}
		last = r.Ordinal
	}
	for i := range store.Ordinal(5) {
		group(i + 1)
	}
	// After reopening, it is unknown which ordinals of the last lease were used.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = store.Open(o); err != nil {
		t.Fatal(err)
	}
	group(last + store.LeaseOrdinals)
	group(last + 1)
	storetest.Check(t, s)
	w.equal(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestOrdinalsOfTwoLeases: while a later lease is open, an earlier one keeps what it did not use.
func TestOrdinalsOfTwoLeases(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{GroupAge: time.Hour})
	w := newWorld()
	one := func(n int) storetest.Records {
		return storetest.Records{"app.test.a/1": storetest.Text(storetest.DID(n))}
	}
	im := one(1).Import(add(t, s, storetest.DID(1)), w.rev())
	im.Done = func(store.Repo, error) {}
	walk := im.Walk
	// the first slot is in use, so the second opens
	im.Walk = func(fn func(repo.Leaf) error) error {
		w.importRepo(t, s, storetest.DID(2), one(2))
		return walk(fn)
	}
	if err := s.Import(t.Context(), im); err != nil {
		t.Fatal(err)
	}
	if err := s.FlushImports(); err != nil {
		t.Fatal(err)
	}
	w.importRepo(t, s, storetest.DID(3), one(3))
	if err := s.FlushImports(); err != nil {
		t.Fatal(err)
	}
	for n, want := range []store.Ordinal{1, store.LeaseOrdinals + 1, store.LeaseOrdinals + 2} {
		if r, err := s.Repo(storetest.DID(n + 1)); err != nil || r.Ordinal != want {
			t.Errorf("repository %d: ordinal %d, want %d, %v", n+1, r.Ordinal, want, err)
		}
	}
}

// TestLateImport: a copy that completes when the repository has one already, or was wiped while the
// copy was in flight, leaves nothing behind.
func TestLateImport(t *testing.T) {
	t.Parallel()
	for _, wiped := range []bool{false, true} {
		s := storetest.Open(t, store.Options{GroupAge: time.Hour})
		w := newWorld()
		did := storetest.DID(1)
		row := add(t, s, did)
		w.importRepo(t, s, did, storetest.Records{"app.test.a/1": storetest.Text("first")})
		if err := s.FlushImports(); err != nil {
			t.Fatal(err)
		}
		if wiped {
			row = add(t, s, did)
		}
		im := storetest.Records{"app.test.a/2": storetest.Text("late")}.Import(row, w.rev())
		var got error
		im.Done = func(_ store.Repo, err error) { got = err }
		if err := s.Import(t.Context(), im); err != nil {
			t.Fatal(err)
		}
		if wiped {
			w.wipe(t, s, did)
		}
		if err := s.FlushImports(); err != nil {
			t.Fatal(err)
		}
		if !errors.Is(got, store.ErrStale) {
			t.Errorf("wiped %v: done with %v", wiped, got)
		}
		w.equal(t, s)
	}
}

// TestOrdinalsInOrder: a list by ordinals stops before the ordinals that an open import may still
// fill, even if a later group is visible already.
func TestOrdinalsInOrder(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{GroupAge: time.Hour, GroupBytes: 1})
	w := newWorld()
	m := storetest.Records{"app.test.a/1": storetest.Text("x")}
	im := m.Import(add(t, s, storetest.DID(1)), w.rev())
	im.Done = func(store.Repo, error) {}
	walk := im.Walk
	im.Walk = func(fn func(repo.Leaf) error) error {
		w.importRepo(t, s, storetest.DID(2), m)
		if r, err := s.Repo(storetest.DID(2)); err != nil || r.Ordinal == 0 {
			t.Errorf("the second group is not flipped: %v", err)
		}
		if rows, err := s.ReposByOrdinal(0, 10); err != nil || len(rows) != 0 {
			t.Errorf("%d repositories before the first group is flipped, %v", len(rows), err)
		}
		return walk(fn)
	}
	if err := s.Import(t.Context(), im); err != nil {
		t.Fatal(err)
	}
	if rows, err := s.ReposByOrdinal(0, 10); err != nil || len(rows) != 2 || rows[0].DID != storetest.DID(1) {
		t.Errorf("%v, %v", rows, err)
	}
}

// TestLeaseUsedUp: a group closes when it has assigned its last ordinal.
func TestLeaseUsedUp(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{GroupAge: time.Hour})
	w := newWorld()
	done := 0
	for n := range store.LeaseOrdinals + 1 {
		im := storetest.Records{}.Import(add(t, s, storetest.DID(n+1)), w.rev())
		im.Done = func(_ store.Repo, err error) {
			if done++; err != nil {
				t.Error(err)
			}
		}
		if err := s.Import(t.Context(), im); err != nil {
			t.Fatal(err)
		}
		if want := n + 1 - (n+1)%store.LeaseOrdinals; done != want {
			t.Fatalf("after %d imports %d are done, want %d", n+1, done, want)
		}
	}
	if err := s.FlushImports(); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Repo(storetest.DID(store.LeaseOrdinals + 1)); err != nil || r.Ordinal != store.LeaseOrdinals+1 {
		t.Errorf("ordinal %d, %v", r.Ordinal, err)
	}
}

// TestGroupsGrow: the first group of a burst is closed after an eighth of the age of groups, and
// each further one may become twice as old. After a pause groups are young again.
func TestGroupsGrow(t *testing.T) {
	t.Parallel()
	const age = 8 * time.Hour // no timer closes a group while the test runs
	clock := time.Unix(1_700_000_000, 0)
	s := storetest.Open(t, store.Options{GroupAge: age, Now: func() time.Time { return clock }})
	w, n := newWorld(), 0
	add := func() (visible bool) {
		t.Helper()
		n++
		did := storetest.DID(n)
		w.importRepo(t, s, did, storetest.Records{"app.test.a/1": storetest.Text(did)})
		r, err := s.Repo(did)
		if err != nil {
			t.Fatal(err)
		}
		return r.Ordinal != 0
	}
	for i, want := range []time.Duration{age / 8, age / 4, age / 2, age, age, age / 8, age / 4} {
		if i == 5 {
			clock = clock.Add(2 * age)
		}
		if add() {
			t.Errorf("group %d was closed with its first member", i)
		}
		clock = clock.Add(want - time.Nanosecond)
		if add() {
			t.Errorf("group %d was closed before %v", i, want)
		}
		clock = clock.Add(time.Nanosecond)
		if !add() {
			t.Errorf("group %d was not closed after %v", i, want)
		}
	}
	w.equal(t, s)
}
