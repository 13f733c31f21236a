package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
)

// TestImportTwiceInGroup: of two copies of one repository in one group, the copy of the current
// attempt is kept, and the other is told that it is stale.
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
		if c := s.Counts(); s.Head() != 2 || c["synced"] != 2 || c["records"] != 1 || c["blocks"] != 1 || c["collections"] != 0 {
			t.Errorf("head %d, %v", s.Head(), c)
		}
		one(t, s, storetest.DID(1), "app.test.a/1", "first") // may be written to at once
		if s.Head() != 3 {
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
				if e.Kind == store.KindRepo && n == len(want)-at {
					return nil // it is synced
				}
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

// TestImportCancelled: a context that ended is passed to Done and opens no group.
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

// TestApplyTooMuch: an entry that could not be decoded is not written.
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

// TestApplyTwice: reads do not see what a batch has written, so that a second Apply to one
// repository would miss the first.
func TestApplyTwice(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	imported(t, s, storetest.DID(1), storetest.Records{})
	r, err := s.Repo(storetest.DID(1))
	if err != nil {
		t.Fatal(err)
	}
	b := s.NewBatch()
	defer b.Discard()
	body := storetest.Text("x")
	ops := []store.Op{{Path: []byte("app.test.a/1"), CID: repo.HashCID(body), Record: body}}
	if err := b.Apply(&r, true, storetest.Rev(2), ops); err != nil {
		t.Fatal(err)
	}
	if err := b.Apply(&r, true, storetest.Rev(3), ops); err == nil {
		t.Error("applied twice")
	}
}

// TestApplyWithoutOrdinal: a repository that was never imported cannot get records.
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

// TestImportBesideLarge: while a large repository is being written, whose walk takes long, others
// are imported and made visible, with two of them in flight too. A large repository is a group by
// itself.
func TestImportBesideLarge(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{GroupAge: time.Hour})
	small := func(n int) store.Import {
		im := storetest.Records{"app.test.a/1": storetest.Text(fmt.Sprint(n))}.Import(add(t, s, storetest.DID(n)), storetest.Rev(1))
		im.Done = func(store.Repo, error) {}
		return im
	}
	halted := func(im store.Import) (chan struct{}, chan struct{}, *errgroup.Group) {
		walking, goOn, done := make(chan struct{}), make(chan struct{}), new(errgroup.Group)
		walk := im.Walk
		im.Walk = func(fn func(repo.Leaf) error) error {
			close(walking)
			<-goOn
			return walk(fn)
		}
		done.Go(func() error { return s.Import(t.Context(), im) })
		return walking, goOn, done
	}
	large := small(1)
	large.Blocks = store.LargeBlocks
	var visible atomic.Bool
	large.Done = func(r store.Repo, err error) { visible.Store(err == nil && r.State == store.StateSynced) }
	walking, largeOn, largeDone := halted(large)
	<-walking
	// Both slots for small repositories are in use; the second is free first, when an import is
	// waiting.
	first, firstOn, firstDone := halted(small(2))
	<-first
	second, secondOn, secondDone := halted(small(3))
	<-second
	var waiting errgroup.Group
	for n := range 20 {
		im := small(4 + n)
		waiting.Go(func() error { return s.Import(t.Context(), im) })
	}
	close(secondOn)
	if err := errors.Join(secondDone.Wait(), waiting.Wait()); err != nil {
		t.Fatal(err)
	}
	close(firstOn)
	if err := firstDone.Wait(); err != nil {
		t.Fatal(err)
	}
	if visible.Load() {
		t.Error("the large one is visible before its walk has ended")
	}
	close(largeOn)
	if err := largeDone.Wait(); err != nil || !visible.Load() {
		t.Errorf("the large one is visible: %v, without a flush (%v)", visible.Load(), err)
	}
	if n := s.Counts()["synced"]; n != 1 {
		t.Errorf("%d repositories are visible, the small ones wait for their group", n)
	}
	if err := s.FlushImports(); err != nil || s.Counts()["synced"] != 23 {
		t.Errorf("%v, %v", s.Counts(), err)
	}
}
