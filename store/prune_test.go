package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/google/go-cmp/cmp"
)

// clock is a time that moves when told.
type clock struct{ us atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.us.Store(1_700_000_000_000_000)
	return c
}

func (c *clock) now() time.Time                { return time.UnixMicro(c.us.Load()) }
func (c *clock) tick(d time.Duration)          { c.us.Add(d.Microseconds()) }
func (c *clock) ago(d time.Duration) time.Time { return c.now().Add(-d) }

// one applies a single op, a deletion when body is "".
func one(t testing.TB, s *store.Store, did, path, body string) {
	t.Helper()
	op := store.Op{Path: []byte(path)}
	if body != "" {
		op.Record = storetest.Text(body)
		op.CID = repo.HashCID(op.Record)
	}
	edit(t, s, did, func(b *store.Batch, r *store.Repo) error { return b.Apply(r, true, r.Rev, []store.Op{op}) })
}

func imported(t testing.TB, s *store.Store, did string, m storetest.Records) {
	t.Helper()
	newWorld().importRepo(t, s, did, m)
	if err := s.FlushImports(); err != nil {
		t.Fatal(err)
	}
}

// prune removes from the log what is dated before that time, and what retention of that length
// removes now. It must not run beside Run, which owns the clock of the retention.
func prune(t testing.TB, s *store.Store, before time.Time) {
	t.Helper()
	if err := store.Retain(context.Background(), s, store.Now(s).Sub(before)); err != nil {
		t.Fatal(err)
	}
	pruneDated(t, s, before)
}

// pruneDated removes from the log what is dated before that time.
func pruneDated(t testing.TB, s *store.Store, before time.Time) {
	t.Helper()
	_, decode := codec(t)
	to := uint64(0)
	err := store.ScanRaw(s, store.SpaceEvent, func(key, value []byte) {
		id, err := store.ParseEventKey(key)
		var e store.Entry
		if err := errors.Join(err, decode(value, &e)); err != nil {
			t.Error(err)
		}
		if e.Time < before.UnixMicro() {
			to = id + store.IDs(&e)
		}
	})
	if err := errors.Join(err, store.Prune(context.Background(), s, to)); err != nil {
		t.Fatal(err)
	}
}

// ids returns the ids of the events from cursor on, and how the page ended.
func ids(t testing.TB, s *store.Store, cursor uint64) (out []uint64) {
	t.Helper()
	for next := uint64(0); next <= s.Head(); cursor = next {
		var err error
		next, err = s.ReadLog(context.Background(), cursor, 1<<20, func(e *store.Event) error {
			out = append(out, e.ID)
			return nil
		})
		if err != nil || next <= cursor && cursor <= s.Head() {
			t.Errorf("from %d: next %d, head %d, %v", cursor, next, s.Head(), err)
			return out
		}
	}
	return out
}

// TestPruneWholeEntries: the tail is always at the beginning of an entry, wherever in the time of
// an entry the limit falls.
func TestPruneWholeEntries(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := storetest.Open(t, store.Options{Now: c.now})
	m := storetest.Records{}
	for i := range 10 {
		m[fmt.Sprint("app.test.a/", i)] = storetest.Text(fmt.Sprint(i))
	}
	for i := range 3 { // ids 1-11, 12-22, 23-33, the last of each that it is synced
		imported(t, s, storetest.DID(i+1), m)
		c.tick(time.Hour)
	}
	for _, row := range []struct {
		before time.Time
		tail   uint64
	}{
		{c.ago(4 * time.Hour), 1}, // nothing is that old
		{c.ago(3 * time.Hour), 1}, // an event at the limit stays
		// between the events of the first entry: it goes whole
		{c.ago(3*time.Hour - 5*time.Microsecond), 11},
		{c.ago(3*time.Hour - 10*time.Minute), 12}, // and that it is synced
		{c.ago(90 * time.Minute), 23},             // the second
		{c.ago(5 * time.Hour), 23},                // an earlier limit restores nothing
	} {
		prune(t, s, row.before)
		if s.Tail() != row.tail || s.Counts()["events"] != int64(34-row.tail) {
			t.Errorf("before %v: tail %d, %d events", row.before, s.Tail(), s.Counts()["events"])
		}
		storetest.Check(t, s)
		if got := ids(t, s, row.tail); len(got) != int(34-row.tail) {
			t.Errorf("tail %d: events %v", row.tail, got)
		}
		if row.tail > 1 {
			if _, err := s.ReadLog(t.Context(), row.tail-1, 1, nil); !errors.Is(err, store.ErrOutdatedCursor) {
				t.Errorf("below tail %d: %v", row.tail, err)
			}
		}
	}
	if err := store.Prune(t.Context(), s, 25); err != nil || s.Tail() != 23 {
		t.Errorf("up to the middle of an entry: tail %d (%v)", s.Tail(), err)
	}
	if got := ids(t, s, 25); cmp.Diff(got, []uint64{25, 26, 27, 28, 29, 30, 31, 32, 33}) != "" {
		t.Errorf("in the middle of the entry that is left: %v", got)
	}
}

// TestPruneManyEntries: more entries and more superseded blocks than one batch takes.
func TestPruneManyEntries(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := storetest.Open(t, store.Options{Now: c.now})
	did := storetest.DID(1)
	imported(t, s, did, storetest.Records{"app.test.a/1": storetest.Text("first")})
	const changes = 2*store.PruneEntries + 10
	for i := range changes {
		one(t, s, did, "app.test.a/1", fmt.Sprint(i))
	}
	c.tick(time.Hour)
	one(t, s, did, "app.test.a/1", "last")
	if n := s.Counts()["blocks"]; n != changes+2 {
		t.Errorf("%d blocks", n)
	}
	prune(t, s, c.ago(time.Minute))
	// The block before the last is superseded by the event that is left.
	if n := s.Counts()["blocks"]; n != 2 || s.Tail() != s.Head() {
		t.Errorf("%d blocks; tail %d, head %d", n, s.Tail(), s.Head())
	}
	storetest.Check(t, s)
}

// TestPruneSuperseded: a block stays as long as an event that names it is kept.
func TestPruneSuperseded(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := storetest.Open(t, store.Options{Now: c.now})
	did := storetest.DID(1)
	imported(t, s, did, storetest.Records{"app.test.a/1": storetest.Text("same"), "app.test.a/2": storetest.Text("same"), "app.test.a/3": storetest.Text("third"), "no path": storetest.Text("hidden")})
	steps := []struct {
		path, body string
		blocks     int64 // when the tail has passed the step
	}{
		{"app.test.a/1", "new", 6},  // the other record still refers to the shared block
		{"app.test.a/2", "", 5},     // now nothing does
		{"app.test.a/3", "more", 4}, // one for one
		{"no path", "", 4},          // makes no event: it is pruned with the next one
		{"app.test.a/9", "x", 3},    // a new one
	}
	for _, st := range steps {
		c.tick(time.Hour)
		one(t, s, did, st.path, st.body)
	}
	// Blocks in all: same, third, hidden; new, more, x.
	for i, st := range steps {
		before := c.ago(time.Duration(len(steps)-1-i)*time.Hour - time.Minute)
		prune(t, s, before)
		storetest.Check(t, s)
		if n := s.Counts()["blocks"]; n != st.blocks {
			t.Errorf("step %d (%s): %d blocks, want %d", i, st.path, n, st.blocks)
		}
		for _, id := range ids(t, s, 0) {
			if id < s.Tail() {
				t.Errorf("event %d below the tail", id)
			}
		}
	}
	if n := s.Counts()["blocks"]; n != 3 || s.Counts()["events"] != 0 {
		t.Errorf("in the end %d blocks, %d events", n, s.Counts()["events"])
	}
}

// TestPruneBesideReaders: while the log grows and is pruned, readers that follow it, or start at
// any cursor, get complete data or ErrOutdatedCursor.
func TestPruneBesideReaders(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	rng := seeded(t)
	const repos = 4
	for i := range repos {
		imported(t, s, storetest.DID(i+1), storetest.Random(rng, 40))
	}
	ctx, stop := context.WithCancel(t.Context())
	var readers, writers sync.WaitGroup
	read := func(cursor uint64) (uint64, error) {
		return s.ReadLog(t.Context(), cursor, 50, func(e *store.Event) error {
			if e.Kind == store.KindRecord && e.Action != store.Delete && repo.HashCID(e.Record) != e.CID {
				return fmt.Errorf("event %d: body is not that of its CID", e.ID)
			}
			return nil
		})
	}
	readers.Go(func() { // follows
		for cursor := uint64(0); ctx.Err() == nil; {
			next, err := read(cursor)
			if errors.Is(err, store.ErrOutdatedCursor) {
				next, err = 0, nil
			}
			if err != nil {
				t.Error(err)
				return
			}
			cursor = next
		}
	})
	readers.Go(func() { // begins at the oldest, which is never outdated
		for ctx.Err() == nil {
			if _, err := read(0); err != nil {
				t.Error(err)
				return
			}
		}
	})
	readers.Go(func() { // any cursor
		for n := uint64(0); ctx.Err() == nil; n++ {
			if _, err := read(max(1, s.Tail()+n%7) - min(n%3, s.Tail()-1)); err != nil && !errors.Is(err, store.ErrOutdatedCursor) && !errors.Is(err, store.ErrFutureCursor) {
				t.Error(err)
				return
			}
		}
	})
	for i := range repos {
		did := storetest.DID(i + 1)
		writers.Go(func() {
			for n := range 60 {
				one(t, s, did, fmt.Sprint("app.test.a/", n%5), fmt.Sprint(n))
			}
		})
	}
	readers.Go(func() {
		for ctx.Err() == nil {
			prune(t, s, time.Now())
		}
	})
	writers.Wait()
	stop()
	readers.Wait()
}

// TestHiddenEvents: the events of an inactive account are skipped and keep their ids; they are
// shown again when it is active. The events of a wiped account are gone, and its account event
// stays.
func TestHiddenEvents(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	a, b := storetest.DID(1), storetest.DID(2)
	imported(t, s, a, storetest.Records{"app.test.a/1": storetest.Text("1"), "app.test.a/2": storetest.Text("2")}) // 1, 2, and 3 that it is synced
	// 4, 5
	imported(t, s, b, storetest.Records{"app.test.a/1": storetest.Text("3")})
	// 6
	one(t, s, a, "app.test.a/3", "4")
	status := func(did string, st store.Status) {
		edit(t, s, did, func(b *store.Batch, r *store.Repo) error { r.Status = st; b.Account(r); return nil })
	}
	want := func(when string, want ...uint64) {
		t.Helper()
		for _, page := range []int{1, 2, 100} {
			var got []uint64
			for cursor := uint64(1); cursor <= s.Head(); {
				next, err := s.ReadLog(t.Context(), cursor, page, func(e *store.Event) error {
					if e.Kind != store.KindRepo {
						got = append(got, e.ID)
					}
					return nil
				})
				if err != nil || next <= cursor {
					t.Fatalf("%s: from %d to %d, %v", when, cursor, next, err)
				}
				cursor = next
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s by %d:\n%s", when, page, d)
			}
		}
		storetest.Check(t, s)
	}
	want("all active", 1, 2, 4, 6)
	for _, st := range []store.Status{store.StatusTakendown, store.StatusSuspended, store.StatusDeactivated, store.StatusDeleted, store.StatusNotFound} {
		edit(t, s, a, func(_ *store.Batch, r *store.Repo) error { r.Status = st; return nil })
		want(st.String(), 4) // 7 to 11 are repo events
	}
	status(a, store.StatusDeactivated) // 12, 13
	want("told", 4, 12)
	// no event: the records are listed when the account is shown again
	one(t, s, a, "app.test.a/4", "6")
	want("written while hidden", 4, 12)
	status(a, store.StatusActive) // 14, 15
	want("active again", 1, 2, 4, 6, 12, 14)
	newWorld().wipe(t, s, b) // 16, 17; keeps its row
	want("wiped", 1, 2, 6, 12, 14, 16)
	edit(t, s, b, func(_ *store.Batch, r *store.Repo) error {
		r.State, r.Status = store.StatePending, store.StatusActive // 18
		return nil
	})
	imported(t, s, b, storetest.Records{"app.test.a/7": storetest.Text("9")}) // 19, 20
	want("imported anew", 1, 2, 6, 12, 14, 16, 19)
	prune(t, s, time.Now().Add(time.Hour))
	if s.Counts()["events"] != 0 || s.Counts()["blocks"] != s.Counts()["records"] {
		t.Errorf("pruned: %v", s.Counts())
	}
}

// superseding imports n repositories and updates the record of each.
func superseding(t testing.TB, s *store.Store, n int) {
	t.Helper()
	for _, did := range importMany(t, s, n) {
		one(t, s, did, "app.test.a/1", "changed")
	}
}

// TestPruneSyncs: pruning the blocks of many repositories waits for the disk a few times, not once
// for each of them.
func TestPruneSyncs(t *testing.T) {
	t.Parallel()
	var syncs atomic.Int64
	count := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData {
			syncs.Add(1)
		}
		return nil
	})
	c := newClock()
	s := storetest.Open(t, store.Options{FS: errorfs.Wrap(vfs.NewMem(), count), Now: c.now})
	const n = 1000
	superseding(t, s, n)
	c.tick(time.Hour)
	before := syncs.Load()
	prune(t, s, c.ago(time.Minute))
	if got := syncs.Load() - before; got > n/10 {
		t.Errorf("%d syncs for %d repositories", got, n)
	}
	if got := s.Counts()["blocks"]; got != n {
		t.Errorf("%d blocks are left, want %d", got, n)
	}
}

// TestPrunePages: entries, superseded blocks and dropped ordinals are pruned side by side: none of
// them waits for the end of the others.
func TestPrunePages(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	did, other := storetest.DID(1), storetest.DID(2)
	imported(t, s, did, storetest.Records{"app.test.a/1": storetest.Text("first")})
	imported(t, s, other, storetest.Records{"app.test.a/1": storetest.Text("other")})
	dropRepo(t, s, other, []store.Op{drop("app.test.a/1")}, true)
	at := s.Tail()
	for range 10 { // one entry supersedes half a page
		var ops []store.Op
		for i := range store.PruneBlocks / 2 {
			ops = append(ops, put(fmt.Sprintf("app.test.b/%05d", i), fmt.Sprint(s.Head(), i)))
		}
		edit(t, s, did, func(b *store.Batch, r *store.Repo) error { return b.Apply(r, true, r.Rev, ops) })
	}
	blocks := s.Counts()["blocks"]
	for pages := 1; ; pages++ {
		more, err := store.PrunePage(s, s.Head()+1)
		if err != nil {
			t.Fatal(err)
		}
		left := 0
		if err := store.ScanRaw(s, store.SpaceDropped, func(_, _ []byte) { left++ }); err != nil {
			t.Fatal(err)
		}
		now := s.Counts()["blocks"]
		if pages == 1 && (!more || s.Tail() == at || now == blocks || left != 0) {
			t.Errorf("after a page: more %v, tail %d, %d of %d blocks, %d dropped ordinals", more, s.Tail(), now, blocks, left)
		}
		if storetest.Check(t, s); !more {
			break
		}
	}
	if s.Counts()["blocks"] != s.Counts()["records"] || s.Counts()["events"] != 0 {
		t.Errorf("pruned: %v", s.Counts())
	}
}

// TestPruneDroppedAtTail: an ordinal that was dropped while the log was empty is forgotten too,
// although pruning had reached that event already.
func TestPruneDroppedAtTail(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	for i := range 2 {
		did := storetest.DID(i + 1)
		imported(t, s, did, storetest.Records{"app.test.a/0": storetest.Text("first")})
		edit(t, s, did, func(b *store.Batch, r *store.Repo) error {
			return b.Apply(r, true, "3zzzzzzzzzzzz", []store.Op{drop("app.test.a/0")})
		})
	}
	for i := range 2 {
		if err := store.Prune(t.Context(), s, s.Head()+1); err != nil {
			t.Fatal(err)
		}
		if s.Tail() != s.Head()+1 {
			t.Fatal("log is not empty")
		}
		dropRepo(t, s, storetest.DID(i+1), nil, true)
	}
	imported(t, s, storetest.DID(5), storetest.Records{"app.test.a/0": storetest.Text("first")})
	if err := store.Prune(t.Context(), s, s.Head()+1); err != nil {
		t.Fatal(err)
	}
	n := 0
	if err := store.ScanRaw(s, store.SpaceDropped, func(_, _ []byte) { n++ }); err != nil {
		t.Fatal(err)
	}
	if n != 0 {
		t.Errorf("%d dropped ordinals are left", n)
	}
}
