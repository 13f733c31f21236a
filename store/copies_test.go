package store_test

import (
	"errors"
	"testing"

	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
)

// TestCopies: the results are those of the last write, also after a restart. A negative number is
// neither written nor believed.
func TestCopies(t *testing.T) {
	t.Parallel()
	o := store.Options{FS: vfs.NewMem(), Dir: "db"}
	s, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	want := []store.Copy{{Kind: "backup", Destination: "/b", Began: 4, Ended: 3, Succeeded: 2, Generation: "g", Bytes: 1, Millis: 5, Error: "e", Failures: 6},
		{Kind: "export", Destination: "/b"}}
	is := func(s *store.Store, want []store.Copy) {
		t.Helper()
		all, err := s.Copies()
		if diff := cmp.Diff(want, all); diff != "" || err != nil {
			t.Error(err, diff)
		}
	}
	is(s, nil)
	write(t, s, func(b *store.Batch) { b.PutCopies([]store.Copy{{Kind: "backup", Destination: "/old"}}) })
	write(t, s, func(b *store.Batch) { b.PutCopies(want) })
	is(s, want)
	for _, wrong := range []store.Copy{{Began: -1}, {Ended: -1}, {Succeeded: -1}, {Bytes: -1}, {Millis: -1}, {Failures: -1}} {
		b := s.NewBatch()
		b.PutCopies([]store.Copy{wrong})
		if err := b.CommitSync(); err == nil {
			t.Errorf("%+v is written", wrong)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	is(storetest.Open(t, o), want)
}

// TestCopiesDamaged: a result with a negative number is not believed.
func TestCopiesDamaged(t *testing.T) {
	t.Parallel()
	s, err := store.Open(store.Options{FS: vfs.NewMem(), Dir: "db"})
	if err != nil {
		t.Fatal(err)
	}
	row := store.CopiesRow{Copies: []store.CopyRow{{Kind: "backup", Destination: "/b", Failures: -1}}}
	if err := store.SetRaw(s, store.MetaKey("copies"), encoded(t, row)); err != nil {
		t.Fatal(err)
	}
	if all, err := s.Copies(); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("%+v, %v", all, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestCopiesRestored: a restored store does not show the copies of the log that was backed up.
func TestCopiesRestored(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	s, err := store.Open(store.Options{Dir: "db", FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	write(t, s, func(b *store.Batch) { b.PutCopies([]store.Copy{{Kind: "backup", Destination: "/b", Succeeded: 1}}) })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := (store.Restored{Source: "/b", Generation: "g", Complete: true}).WriteOn(fs, "db"); err != nil {
		t.Fatal(err)
	}
	for _, readOnly := range []bool{true, false, true} {
		s, err := store.Open(store.Options{Dir: "db", FS: fs, ReadOnly: readOnly})
		if err != nil {
			t.Fatal(err)
		}
		if all, err := s.Copies(); len(all) > 0 || err != nil {
			t.Errorf("read-only %v: %+v, %v", readOnly, all, err)
		}
		storetest.Check(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
