package store_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"cistern/store"
	"cistern/store/storetest"
)

// TestReposByCollectionIsBounded: a call passes a bounded number of hidden accounts, and the place that
// it returns leads on to the accounts behind them.
func TestReposByCollectionIsBounded(t *testing.T) {
	t.Parallel()
	storetest.WithoutRace(t)
	s := storetest.Open(t, store.Options{})
	const n, shown = 2500, 2400
	for i := range n {
		did := storetest.DID(i)
		im := storetest.Records{"app.test.a/x": storetest.Text(did)}.Import(add(t, s, did), storetest.Rev(1))
		im.Done = func(_ store.Repo, err error) {
			if err != nil {
				t.Error(err)
			}
		}
		if err := s.Import(t.Context(), im); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.FlushImports(); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if i != shown {
			edit(t, s, storetest.DID(i), func(b *store.Batch, r *store.Repo) error {
				b.Hide(r, store.StatusTakendown, store.OriginHost, store.Retry{})
				return nil
			})
		}
	}
	for _, collections := range [][]string{nil, {"app.test.a"}, {"app.test.a", "app.test.b"}} {
		calls := 0
		var got []string
		for at, ended := store.Ordinal(0), false; !ended; calls++ {
			page, next, end, err := s.ReposByCollection(collections, at, 10)
			if err != nil {
				t.Fatal(err)
			}
			if !end && next <= at {
				t.Fatalf("the place %d follows %d", next, at)
			}
			for _, r := range page {
				got = append(got, r.DID)
			}
			at, ended = next, end
		}
		if len(got) != 1 || got[0] != storetest.DID(shown) || calls != 3 {
			t.Errorf("%v: %v in %d calls", collections, got, calls)
		}
	}
}

// TestHideManyCollections hides and shows an account with as many collections as one may have: the totals
// follow, in one batch each time.
func TestHideManyCollections(t *testing.T) {
	t.Parallel()
	storetest.WithoutRace(t)
	s := storetest.Open(t, store.Options{})
	const n = 10_000
	did, m := storetest.DID(1), storetest.Records{}
	for i := range n {
		m[fmt.Sprintf("app.test.c%05d/x", i)] = storetest.Text("x")
	}
	im := m.Import(add(t, s, did), storetest.Rev(1))
	im.Done = func(_ store.Repo, err error) {
		if err != nil {
			t.Error(err)
		}
	}
	if err := errors.Join(s.Import(t.Context(), im), s.FlushImports()); err != nil {
		t.Fatal(err)
	}
	want := func(names int64) {
		t.Helper()
		all, err := s.CollectionTotals("", "", n+1)
		if err != nil || int64(len(all)) != names || s.Counts()["collection_names"] != names {
			t.Errorf("%d totals of %v, %v; want %d", len(all), s.Counts(), err, names)
		}
	}
	want(n)
	for _, status := range []store.Status{store.StatusTakendown, store.StatusActive} {
		names := int64(0)
		if status == store.StatusActive {
			names = n
		}
		begun := time.Now()
		edit(t, s, did, func(_ *store.Batch, r *store.Repo) error {
			r.Status = status
			return nil
		})
		t.Logf("%s: %s", status, time.Since(begun))
		want(names)
	}
}
