package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
)

// TestImportTwiceInGroup: two copies of one repository in one group. One of them wins, and
// it is the one of the attempt that counts; the other is told that it is stale.
func TestImportTwiceInGroup(t *testing.T) {
	t.Parallel()
	for _, small := range []int64{1 << 20, 1} {
		for _, again := range []bool{false, true} { // the second fetch is a new attempt
			t.Run(fmt.Sprintf("small=%d/again=%v", small, again), func(t *testing.T) {
				t.Parallel()
				s := storetest.Open(t, store.Options{SmallBytes: small, GroupAge: time.Hour})
				did := storetest.DID(1)
				var outcomes [2]error
				copies := [2]storetest.Records{{"app.test.a/1": storetest.Text("first")}, {"app.test.a/2": storetest.Text("second")}}
				r := add(t, s, did)
				for i, m := range copies {
					if i == 1 && again {
						r = edit(t, s, did, func(_ *store.Batch, r *store.Repo) error { r.Attempt++; return nil })
					}
					im := m.Import(r, storetest.Rev(i+1))
					im.Done = func(_ store.Repo, err error) { outcomes[i] = err }
					if err := s.Import(t.Context(), im); err != nil {
						t.Fatal(err)
					}
				}
				if err := attempt(t, "flip", func(t testing.TB) {
					if err := s.FlushImports(); err != nil {
						t.Fatal(err)
					}
				}); err != nil {
					t.Fatal(err)
				}
				winner := 0
				if again {
					winner = 1
				}
				if outcomes[winner] != nil || !errors.Is(outcomes[1-winner], store.ErrStale) {
					t.Errorf("outcomes %v", outcomes)
				}
				want := map[string]storetest.Records{did: copies[winner]}
				if d := cmp.Diff(want, held(t, s)); d != "" {
					t.Error(d)
				}
				if d := cmp.Diff(want, fold(t, s, 10)); d != "" {
					t.Error(d)
				}
			})
		}
	}
}

// TestImportEmpty: a repository without records, and one whose paths are all hidden, are
// complete copies that make no events.
func TestImportEmpty(t *testing.T) {
	t.Parallel()
	for _, small := range []int64{1 << 20, 1} {
		s := storetest.Open(t, store.Options{SmallBytes: small})
		imported(t, s, storetest.DID(1), storetest.Records{})
		imported(t, s, storetest.DID(2), storetest.Records{"no path": storetest.Text("x")})
		if c := s.Counts(); s.Head() != 0 || c["synced"] != 2 || c["records"] != 1 || c["blocks"] != 1 || c["collections"] != 0 {
			t.Errorf("head %d, %v", s.Head(), c)
		}
		one(t, s, storetest.DID(1), "app.test.a/1", "first") // may be written to at once
		if s.Head() != 1 {
			t.Errorf("head %d", s.Head())
		}
	}
}

// TestImportManyBlocks: blocks shared in every order read back, and a listing longer than
// one row is read from any cursor.
func TestImportManyBlocks(t *testing.T) {
	t.Parallel()
	for _, small := range []int64{1 << 30, 1} {
		s := storetest.Open(t, store.Options{SmallBytes: small, TableBytes: 4 << 10})
		rng := seeded(t)
		m := storetest.Records{}
		for i := range 3000 {
			m[fmt.Sprintf("app.test.c%d/%s", i%7, storetest.Rev(rng.IntN(1<<30)))] = storetest.Text(fmt.Sprint(rng.IntN(500)))
		}
		imported(t, s, storetest.DID(1), m)
		want := m.Paths()
		for range 50 {
			at := rng.IntN(len(want))
			n := 0
			if _, err := s.ReadLog(t.Context(), uint64(at+1), 20, func(e *store.Event) error {
				p := want[at+n]
				if string(e.Collection)+"/"+string(e.Rkey) != p || string(e.Record) != string(m[p]) || e.ID != uint64(at+n+1) {
					return fmt.Errorf("event %d is %s/%s, want %s", e.ID, e.Collection, e.Rkey, p)
				}
				n++
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if n != min(20, len(want)-at) {
				t.Errorf("from %d: %d events", at, n)
			}
		}
	}
}

// TestImportCancelled: a context that ended is told to Done and opens no group.
func TestImportCancelled(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var told error
	im := storetest.Records{}.Import(add(t, s, storetest.DID(1)), storetest.Rev(1))
	im.Done = func(_ store.Repo, err error) { told = err }
	if err := s.Import(ctx, im); !errors.Is(err, context.Canceled) || !errors.Is(told, context.Canceled) {
		t.Errorf("%v; told %v", err, told)
	}
}

// TestApplyTooMuch: what could not be read back is not written.
func TestApplyTooMuch(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	imported(t, s, storetest.DID(1), storetest.Records{})
	r, err := s.Repo(storetest.DID(1))
	if err != nil {
		t.Fatal(err)
	}
	b := s.NewBatch()
	defer b.Discard()
	if err := b.Apply(&r, true, storetest.Rev(1), make([]store.Op, store.EntryOpsMax+1)); err == nil {
		t.Error("applied")
	}
}

// TestApplyWithoutOrdinal: a repository that was never imported has no place for records.
func TestApplyWithoutOrdinal(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	r := add(t, s, storetest.DID(1))
	b := s.NewBatch()
	defer b.Discard()
	if err := b.Apply(&r, true, storetest.Rev(1), []store.Op{{Path: []byte("app.test.a/1")}}); err == nil {
		t.Error("applied")
	}
}
