package store_test

import (
	"errors"
	"math/rand/v2"
	"testing"

	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
)

// write commits what fn puts into a batch.
func write(t testing.TB, s *store.Store, fn func(b *store.Batch)) {
	t.Helper()
	b := s.NewBatch()
	fn(b)
	if err := b.CommitSync(); err != nil {
		t.Fatal(err)
	}
}

func at(seq int64) func() int64 { return func() int64 { return seq } }

// reopen closes a store and opens it again, without what was not synced.
func reopen(t testing.TB, s *store.Store, fs *vfs.MemFS) *store.Store {
	t.Helper()
	clone := fs.CrashClone(vfs.CrashCloneCfg{RNG: rand.New(rand.NewPCG(1, 2))})
	return storetest.Open(t, store.Options{FS: clone})
}

// TestCursor: each row is one batch and the cursor after it, in memory, on disk and after a crash.
func TestCursor(t *testing.T) {
	t.Parallel()
	fs := vfs.NewCrashableMem()
	s := storetest.Open(t, store.Options{FS: fs})
	for _, row := range []struct {
		name string
		do   func(b *store.Batch)
		want int64 // -1: there is none
	}{
		{"none", func(*store.Batch) {}, -1},
		{"negative", func(b *store.Batch) { b.SetCursor("a", at(-1)) }, -1},
		{"first, and zero is one", func(b *store.Batch) { b.SetCursor("a", at(0)) }, 0},
		{"forward", func(b *store.Batch) { b.SetCursor("a", at(7)) }, 7},
		{"backward", func(b *store.Batch) { b.SetCursor("a", at(6)) }, 7},
		{"another source", func(b *store.Batch) { b.SetCursor("b", at(99)) }, 7},
		{"both", func(b *store.Batch) { b.SetCursor("a", at(8)); b.SetCursor("b", at(100)) }, 8},
		{"twice", func(b *store.Batch) { b.SetCursor("a", at(9)); b.SetCursor("a", at(10)); b.SetCursor("a", at(5)) }, 10},
		{"dropped", func(b *store.Batch) { b.DropCursor("a") }, -1},
		{"anew, lower", func(b *store.Batch) { b.SetCursor("a", at(3)) }, 3},
		{"dropped and set", func(b *store.Batch) { b.DropCursor("a"); b.SetCursor("a", at(2)) }, 2},
		{"the largest", func(b *store.Batch) { b.SetCursor("a", at(1<<63-1)) }, 1<<63 - 1},
	} {
		write(t, s, row.do)
		for name, s := range map[string]*store.Store{"written": s, "after a crash": reopen(t, s, fs)} {
			seq, ok, err := s.Cursor("a")
			if err != nil || ok != (row.want >= 0) || ok && seq != row.want {
				t.Errorf("%s, %s: %d, %v, %v, want %d", row.name, name, seq, ok, err, row.want)
			}
		}
	}
	// The values of the last run count after opening too.
	again := reopen(t, s, fs)
	write(t, again, func(b *store.Batch) { b.SetCursor("b", at(50)) })
	if seq, _, err := again.Cursor("b"); seq != 100 || err != nil {
		t.Errorf("moved back to %d, %v", seq, err)
	}
}

// TestCursorDiscarded: the closure of a batch that is discarded, or that cannot be committed, is
// not called.
func TestCursorDiscarded(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	called := func() int64 { t.Error("called"); return 1 }
	b := s.NewBatch()
	b.SetCursor("a", called)
	b.Discard()
	r := store.Repo{DID: storetest.DID(1), State: store.StateDraining}
	b = s.NewBatch()
	b.ForgeRepo(&r)
	b.SetCursor("a", called)
	if err := b.CommitSync(); err == nil {
		t.Error("a draining repository without commits was written")
	}
}

func TestSources(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	write(t, s, func(b *store.Batch) {
		b.PutSource(store.Source{URL: "wss://b.test"})
		b.PutSource(store.Source{URL: "wss://a.test", PDS: true})
		b.PutSource(store.Source{URL: "wss://c.test"})
	})
	write(t, s, func(b *store.Batch) {
		b.DropSource("wss://c.test")
		b.DropSource("wss://none.test")
		b.PutSource(store.Source{URL: "wss://b.test", PDS: true})
	})
	got, err := s.Sources()
	if d := cmp.Diff([]store.Source{{URL: "wss://a.test", PDS: true}, {URL: "wss://b.test", PDS: true}}, got); d != "" || err != nil {
		t.Error(d, err)
	}
}

// TestCursorCorrupt: a cursor that cannot be read is an error, never a guess.
func TestCursorCorrupt(t *testing.T) {
	t.Parallel()
	for _, v := range [][]byte{{}, {1}, {0x80, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 9)} {
		fs := vfs.NewMem()
		s, err := store.Open(store.Options{FS: fs, Dir: "db"})
		if err != nil {
			t.Fatal(err)
		}
		surgeon{t, s}.set(store.CursorKey("a"), v)
		if _, _, err := s.Cursor("a"); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("%x: %v", v, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := store.Open(store.Options{FS: fs, Dir: "db"}); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("%x: opened with %v", v, err)
		}
	}
}
