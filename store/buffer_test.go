package store_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
)

// buffer adds commits with these numbers to did's buffer, each in a batch, and returns which were
// kept.
func buffer(t testing.TB, s *store.Store, did string, message string, revs ...int) (kept []bool) {
	t.Helper()
	for _, n := range revs {
		edit(t, s, did, func(b *store.Batch, r *store.Repo) error {
			kept = append(kept, b.Buffer(r, storetest.Rev(n), []byte(message+fmt.Sprint(n))))
			return nil
		})
	}
	return kept
}

// bufferedOf returns the commits buffered for did.
func bufferedOf(t testing.TB, s *store.Store, did string) (out []string) {
	t.Helper()
	err := s.BufferedCommits(did, func(rev string, message []byte) error {
		out = append(out, rev+" "+string(message))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := s.Buffered(did); n != len(out) {
		t.Errorf("%d commits are buffered of %s, remembered are %d", len(out), did, n)
	}
	return out
}

// TestBuffer: commits come in the order of their revs, whatever order they arrived in, and each
// once; the buffers of other DIDs, even with a common prefix, are not touched.
func TestBuffer(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	dids := []string{"did:web:a", "did:web:a.b", storetest.DID(1), storetest.DID(2)}
	for _, did := range dids {
		add(t, s, did)
		buffer(t, s, did, "m", 5, 3, 9)
		buffer(t, s, did, "again", 3, 9) // the first one stays
	}
	want := []string{storetest.Rev(3) + " m3", storetest.Rev(5) + " m5", storetest.Rev(9) + " m9"}
	for _, did := range dids {
		if d := cmp.Diff(want, bufferedOf(t, s, did)); d != "" {
			t.Errorf("%s:\n%s", did, d)
		}
	}
	edit(t, s, dids[0], func(b *store.Batch, r *store.Repo) error {
		b.Unbuffer(r, storetest.Rev(3))
		b.Unbuffer(r, storetest.Rev(4)) // was never there
		return nil
	})
	edit(t, s, dids[2], func(b *store.Batch, r *store.Repo) error { b.DropBuffer(r); b.DropBuffer(r); return nil })
	if got := bufferedOf(t, s, dids[0]); cmp.Diff(want[1:], got) != "" {
		t.Errorf("unbuffered: %v", got)
	}
	if got := bufferedOf(t, s, dids[2]); len(got) != 0 || row(t, s, dids[2]).SeenRev != storetest.Rev(9) {
		t.Errorf("dropped: %v, seen %s", got, row(t, s, dids[2]).SeenRev)
	}
	for _, did := range []string{dids[1], dids[3]} {
		if got := bufferedOf(t, s, did); len(got) != 3 {
			t.Errorf("of %s: %v", did, got)
		}
	}
	if n := s.Counts()["buffered"]; n != 8 {
		t.Errorf("%d are counted", n)
	}
}

func row(t testing.TB, s *store.Store, did string) store.Repo {
	t.Helper()
	r, err := s.Repo(did)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestBufferDiscarded: a batch that is discarded changes nothing, in memory neither.
func TestBufferDiscarded(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	r := add(t, s, storetest.DID(1))
	buffer(t, s, r.DID, "m", 1)
	b := s.NewBatch()
	b.Buffer(&r, storetest.Rev(2), []byte("x"))
	b.Buffer(&r, storetest.Rev(2), []byte("x")) // twice in a batch is once
	b.Discard()
	b = s.NewBatch()
	b.DropBuffer(&r)
	b.Discard()
	if got := bufferedOf(t, s, r.DID); len(got) != 1 {
		t.Errorf("buffered are %v", got)
	}
}

// TestBufferLimits: a commit that would exceed a limit is not kept, nor are those buffered before.
func TestBufferLimits(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("x", store.BufferBytesMax/2)
	for _, limit := range []struct {
		name string
		fill func(t *testing.T, s *store.Store, did string) (last int)
	}{
		{"bytes", func(t *testing.T, s *store.Store, did string) int {
			buffer(t, s, did, large, 1)
			buffer(t, s, did, large[4:], 2)
			return 2
		}},
		{"total", func(t *testing.T, s *store.Store, did string) int {
			buffer(t, s, did, "m", 1, 2)
			store.AddBuffered(s, store.BufferTotalMax-4)
			return 2
		}},
	} {
		t.Run(limit.name, func(t *testing.T) {
			t.Parallel()
			s := storetest.Open(t, store.Options{})
			did := storetest.DID(1)
			add(t, s, did)
			last := limit.fill(t, s, did)
			if n := s.Buffered(did); n != last {
				t.Fatalf("%d of %d are kept below the limit", n, last)
			}
			if kept := buffer(t, s, did, "over", last+1); kept[0] || s.Buffered(did) != 0 || s.Counts()["buffered"] != 0 {
				t.Errorf("over the limit: %v, %d are kept", kept, s.Buffered(did))
			}
			if r := row(t, s, did); r.SeenRev != storetest.Rev(last+1) {
				t.Errorf("seen is %q", r.SeenRev)
			}
			if limit.name == "total" {
				store.AddBuffered(s, -store.BufferTotalMax)
			}
			if kept := buffer(t, s, did, "m", last+2); !kept[0] {
				t.Error("nothing is kept any more")
			}
		})
	}
}

// TestBufferRecovered: opening a store drops the commits buffered for repositories that were being
// fetched, and keeps those of draining ones.
func TestBufferRecovered(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	o := store.Options{FS: fs, Dir: "db"}
	s, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	pending, draining := storetest.DID(1), storetest.DID(2)
	add(t, s, pending)
	w := newWorld()
	w.importRepo(t, s, draining, storetest.Records{"app.test.a/1": storetest.Text("x")})
	if err := s.FlushImports(); err != nil {
		t.Fatal(err)
	}
	s.BeginFetch(pending)
	buffer(t, s, pending, "m", 8, 9)
	edit(t, s, draining, func(b *store.Batch, r *store.Repo) error {
		b.Buffer(r, storetest.Rev(8), []byte("m8"))
		r.State = store.StateDraining
		return nil
	})
	storetest.Check(t, s)
	if got, err := s.Draining(); cmp.Diff([]string{draining}, got) != "" || err != nil {
		t.Errorf("draining are %v, %v", got, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o.ReadOnly = true // changes nothing, and finds no difference
	if s, err = store.Open(o); err != nil {
		t.Fatal(err)
	}
	storetest.Check(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o.ReadOnly = false
	s = storetest.Open(t, o)
	if got := bufferedOf(t, s, pending); len(got) != 0 || row(t, s, pending).SeenRev != storetest.Rev(9) || s.Fetching(pending) {
		t.Errorf("of the pending one %v are left, seen is %s", got, row(t, s, pending).SeenRev)
	}
	if got := bufferedOf(t, s, draining); len(got) != 1 || row(t, s, draining).State != store.StateDraining {
		t.Errorf("of the draining one %v are left", got)
	}
	if c := s.Counts(); c["draining"] != 1 || c["buffered"] != 1 {
		t.Errorf("counted: %v", c)
	}
	edit(t, s, draining, func(b *store.Batch, r *store.Repo) error {
		b.Unbuffer(r, storetest.Rev(8))
		r.State = store.StateSynced
		return nil
	})
	if got, err := s.Draining(); len(got) != 0 || err != nil || s.Counts()["draining"] != 0 {
		t.Errorf("draining are %v, %v", got, err)
	}
}

// TestBufferStates: the state of a row and its buffer agree, or the batch is refused.
func TestBufferStates(t *testing.T) {
	t.Parallel()
	for _, to := range []struct {
		state store.State
		left  int
		fails bool
	}{
		{store.StatePending, 1, false},
		{store.StateDraining, 1, false},
		{store.StateSynced, 1, true}, // the commits would never be applied
		{store.StateResync, 0, false},
		{store.StateGone, 0, false},
		{store.StateIdle, 0, false},
	} {
		s := storetest.Open(t, store.Options{})
		r := add(t, s, storetest.DID(1))
		buffer(t, s, r.DID, "m", 4)
		r = row(t, s, r.DID)
		r.State = to.state
		b := s.NewBatch()
		b.ForgeRepo(&r)
		if err := b.CommitSync(); (err != nil) != to.fails {
			t.Errorf("%s: %v", to.state, err)
		}
		if n := s.Buffered(r.DID); n != to.left || n == 0 && row(t, s, r.DID).SeenRev != storetest.Rev(4) {
			t.Errorf("%s: %d are buffered, seen is %q", to.state, n, row(t, s, r.DID).SeenRev)
		}
	}
}

// TestBufferRev: a rev of another length would be another key's.
func TestBufferRev(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	r := add(t, s, storetest.DID(1))
	b := s.NewBatch()
	if b.Buffer(&r, "3k", bytes.Repeat([]byte{1}, 4)) || b.CommitSync() == nil {
		t.Error("kept under a rev of two bytes")
	}
}

func TestFetching(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	s.BeginFetch("a")
	if !s.Fetching("a") || s.Fetching("b") {
		t.Error("a is being fetched, and b is not")
	}
	s.EndFetch("a")
	s.EndFetch("a")
	if s.Fetching("a") {
		t.Error("a is still being fetched")
	}
}

// TestBufferTwice: a commit that comes twice, even for one batch, is buffered and counted once.
func TestBufferTwice(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	did := storetest.DID(1)
	add(t, s, did)
	for range 2 {
		edit(t, s, did, func(b *store.Batch, r *store.Repo) error {
			for _, message := range []string{"first", "again"} {
				if !b.Buffer(r, storetest.Rev(9), []byte(message)) {
					t.Errorf("%s: not kept", message)
				}
			}
			return nil
		})
	}
	err := s.BufferedCommits(did, func(_ string, message []byte) error {
		if string(message) != "first" {
			t.Errorf("%s is kept", message)
		}
		return nil
	})
	if n := s.Buffered(did); n != 1 || s.Counts()["buffered"] != 1 || err != nil {
		t.Errorf("%d are buffered, %v, %v", n, s.Counts(), err)
	}
}
