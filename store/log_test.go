package store_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"cistern/filter"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestLostEvent: a missing row of the log is corruption wherever it was; a reader must neither skip
// it nor ask for it for ever.
func TestLostEvent(t *testing.T) {
	t.Parallel()
	for lost := range uint64(3) {
		s, err := store.Open(store.Options{FS: vfs.NewMem(), Dir: "db"})
		if err != nil {
			t.Fatal(err)
		}
		for n := range 3 {
			newWorld().importRepo(t, s, storetest.DID(n+1), storetest.Records{"app.test.a/1": storetest.Text("x")})
			if err := s.FlushImports(); err != nil {
				t.Fatal(err)
			}
		}
		if err := store.DeleteRaw(s, store.EventKey(nil, lost+1)); err != nil {
			t.Fatal(err)
		}
		given := uint64(0)
		next, err := s.ReadLog(t.Context(), 0, 100, func(*store.Event) error { given++; return nil })
		if given != lost || next != lost+1 || !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("event %d lost: %d given, next %d, %v", lost+1, given, next, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestUnsettledTwice: of two batches that hide the same events, the second one decides when a
// reader may pass them.
func TestUnsettledTwice(t *testing.T) {
	t.Parallel()
	var u store.Unsettled
	did := storetest.DID(1)
	first, second := u.Add(did), u.Add(did)
	if !u.Holds(did) {
		t.Error("events are passed that no durable batch hides")
	}
	if u.Settle(first); !u.Holds(did) {
		t.Error("events are passed although the newest batch that hides them is not durable")
	}
	if wake := u.Settle(second); !wake || u.Holds(did) {
		t.Errorf("both batches are durable: a reader is woken: %v, may pass: %v", wake, !u.Holds(did))
	}
}

// TestReadLogWaitsForWhatHides: a reader does not pass events that a batch hides which a crash may
// still lose, and is woken when it may pass them.
func TestReadLogWaitsForWhatHides(t *testing.T) {
	t.Parallel()
	for name, hide := range map[string]func(b *store.Batch, r *store.Repo) error{
		"hidden": func(b *store.Batch, r *store.Repo) error {
			r.Status = store.StatusDeactivated
			b.ForgeRepo(r)
			return nil
		},
		"wiped": func(b *store.Batch, r *store.Repo) error {
			r.State = store.StateGone
			err := b.Wipe(r)
			b.ForgeRepo(r)
			return err
		},
		"dropped": func(b *store.Batch, r *store.Repo) error {
			if err := b.Apply(r, false, r.Rev, []store.Op{drop("app.test.a/1")}); err != nil {
				return err
			}
			return b.DropRepo(r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := storetest.Open(t, store.Chunked(store.Options{}, 1, 6))
			did := storetest.DID(1)
			imported(t, s, storetest.DID(2), storetest.Records{"app.test.a/1": storetest.Text("another")}) // events 1 and 2
			// 3, 4
			imported(t, s, did, storetest.Records{"app.test.a/1": storetest.Text("one")})
			imported(t, s, storetest.DID(3), storetest.Records{"app.test.a/1": storetest.Text("last")}) // 5, 6
			unlock := s.Lock(did)
			r, err := s.Repo(did)
			if err != nil {
				t.Fatal(err)
			}
			b := s.NewBatch()
			if err := hide(b, &r); err != nil {
				t.Fatal(err)
			}
			wait, err := b.Commit()
			unlock()
			if err != nil {
				t.Fatal(err)
			}
			changed := s.Changed()
			none := func(e *store.Event) error {
				if e.ID > 2 {
					t.Errorf("event %d is given", e.ID)
				}
				return nil
			}
			for _, from := range []uint64{1, 2, 3} {
				if next, err := s.ReadLog(t.Context(), from, 100, none); next != 3 || err != nil {
					t.Errorf("from %d the reader goes on at %d, %v", from, next, err)
				}
				f := eventsFilter(t, filter.EventsConfig{Collections: []string{"app.test.a"}})
				if next, err := s.ReadLogSparse(t.Context(), f, from, 100, none); next != 3 || err != nil {
					t.Errorf("from %d the sparse reader goes on at %d, %v", from, next, err)
				}
			}
			if err := wait(); err != nil {
				t.Fatal(err)
			}
			<-changed
			if next, err := s.ReadLog(t.Context(), 3, 2, func(*store.Event) error { return nil }); next != 5 || err != nil {
				t.Errorf("when it is durable, the reader goes on at %d, %v", next, err)
			}
		})
	}
}

// TestEmptyBatchSettlesNothing: a batch without rows, whose wait returns at once, implies nothing
// about the batches before it.
func TestEmptyBatchSettlesNothing(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	did := storetest.DID(1)
	imported(t, s, did, storetest.Records{"app.test.a/1": storetest.Text("one")})
	unlock := s.Lock(did)
	r, err := s.Repo(did)
	if err != nil {
		t.Fatal(err)
	}
	r.Status = store.StatusDeactivated
	b := s.NewBatch()
	b.ForgeRepo(&r)
	wait, err := b.Commit()
	unlock()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.NewBatch().CommitSync(); err != nil {
		t.Fatal(err)
	}
	if next, err := s.ReadLog(t.Context(), 1, 100, func(*store.Event) error { return nil }); next != 1 || err != nil {
		t.Errorf("before the batch that hides event 1 is durable, the reader goes on at %d, %v", next, err)
	}
	if err := wait(); err != nil {
		t.Fatal(err)
	}
}

// TestSubjectEvents: events of an account and its identity have the status and the handle of the
// row, as they were then, in memory and on disk alike.
func TestSubjectEvents(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	did := storetest.DID(1)
	imported(t, s, did, storetest.Records{"app.test.a/1": storetest.Text("one")}) // events 1, 2
	row := func(status store.Status, handle string) store.Repo {
		return store.Repo{DID: did, Status: status, Handle: handle, PDS: "https://pds.test"}
	}
	a, b := row(store.StatusTakendown, "a.test"), row(store.StatusActive, "b.test")
	batch := s.NewBatch()
	for _, r := range []store.Repo{a, b} {
		batch.Account(&r)
		batch.Identity(&r)
	}
	if err := batch.CommitSync(); err != nil {
		t.Fatal(err)
	}
	if !store.InMemory(s, 3) {
		t.Error("the events are not in memory")
	}
	type event struct {
		kind        store.Kind
		status      store.Status
		handle, pds string
	}
	want := []event{
		{store.KindAccount, a.Status, "a.test", ""},
		{store.KindIdentity, a.Status, "a.test", a.PDS},
		{store.KindAccount, b.Status, "b.test", ""},
		{store.KindIdentity, b.Status, "b.test", b.PDS},
	}
	for name, read := range map[string]readsLog{"memory": s.ReadLog, "disk": s.ReadLogOnDisk} {
		var got []event
		_, err := read(t.Context(), 3, 100, func(ev *store.Event) error {
			got = append(got, event{ev.Kind, ev.Status, ev.Handle, ev.PDS})
			return nil
		})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("from %s: %v, %v; want %v", name, got, err, want)
		}
	}
}

// readsLog is a method that reads the log.
type readsLog func(
	ctx context.Context, cursor uint64, maxEvents int, fn func(*store.Event) error,
) (next uint64, err error)
