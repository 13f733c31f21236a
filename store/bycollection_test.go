package store_test

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"testing"

	"cistern/store"
	"cistern/store/storetest"
)

// keyed is the place of a record in a list by time.
type keyed struct {
	rkey    string
	ordinal store.Ordinal
}

// TestRecordsByTimeKeepsFew lists a collection of more repositories than a page keeps in memory, some of
// which are hidden, in pages of all sizes: joined, they are the list of all records by key.
func TestRecordsByTimeKeepsFew(t *testing.T) {
	t.Parallel()
	storetest.WithoutRace(t)
	s := storetest.Open(t, store.Options{})
	rng := seeded(t)
	const repos = 700
	for i := range repos {
		did, m := storetest.DID(i), storetest.Records{"app.test.ab/z": storetest.Text("near")}
		for range rng.IntN(4) {
			rkey := storetest.Rev(rng.IntN(300))
			m["app.test.a/"+rkey] = storetest.Text(rkey)
		}
		im := m.Import(add(t, s, did), storetest.Rev(1))
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
	var want []keyed
	for i := range repos {
		row, err := s.Repo(storetest.DID(i))
		if err != nil {
			t.Fatal(err)
		}
		if rng.IntN(3) == 0 {
			edit(t, s, row.DID, func(b *store.Batch, r *store.Repo) error {
				b.Hide(r, store.StatusTakendown, store.OriginHost, store.Retry{})
				return nil
			})
			continue
		}
		for n := range 300 {
			rkey := storetest.Rev(n)
			if _, err := s.Record(&row, "app.test.a", rkey); err == nil {
				want = append(want, keyed{rkey, row.Ordinal})
			} else if !errors.Is(err, store.ErrNotFound) {
				t.Fatal(err)
			}
		}
	}
	for _, reverse := range []bool{false, true} {
		slices.SortFunc(want, func(a, b keyed) int {
			c := cmp.Or(cmp.Compare(a.rkey, b.rkey), cmp.Compare(a.ordinal, b.ordinal))
			if reverse {
				return c
			}
			return -c
		})
		for _, limit := range []int{1, 7, 100, 10_000} {
			for _, taken := range []int{limit, 10_000} { // also by a caller that takes more than it said
				if got := byTime(t, s, limit, taken, reverse); !slices.Equal(got, want) {
					t.Errorf("limit %d, %d taken, reverse %v: %d records, want %d", limit, taken, reverse, len(got), len(want))
				}
			}
		}
	}
	_, _, err := s.RecordsByTime(t.Context(), store.TimeOrder{Collection: "app.test.a", ReposMax: 300}, nil)
	if !errors.Is(err, store.ErrTooManyRepos) {
		t.Errorf("of too many repositories: %v", err)
	}
}

// byTime reads a list by pages that state a limit, of which it takes some records.
func byTime(t *testing.T, s *store.Store, limit, taken int, reverse bool) (all []keyed) {
	t.Helper()
	o := store.TimeOrder{Collection: "app.test.a", Reverse: reverse, Limit: limit}
	for ended := false; !ended; {
		n := 0
		next, end, err := s.RecordsByTime(t.Context(), o, func(ev *store.Event) bool {
			row, err := s.Repo(ev.DID)
			if err != nil || string(ev.Record) != string(storetest.Text(string(ev.Rkey))) {
				t.Error(fmt.Errorf("record %s of %s: %w", ev.Rkey, ev.DID, err))
			}
			all = append(all, keyed{string(ev.Rkey), row.Ordinal})
			n++
			return n < taken
		})
		if err != nil {
			t.Fatal(err)
		}
		if !end && next == o.After {
			t.Fatalf("a page of %d stays at %v", n, next)
		}
		o.After, ended = next, end
	}
	return all
}
