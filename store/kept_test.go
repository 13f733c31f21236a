package store_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"cistern/filter"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
)

// whole is a copy of an event that outlives the callback.
func whole(e *store.Event) store.Event {
	c := *e
	c.Collection, c.Rkey = append([]byte{}, e.Collection...), append([]byte{}, e.Rkey...)
	c.Record = append([]byte{}, e.Record...)
	return c
}

// logged returns all events that readers see.
func logged(t testing.TB, s *store.Store) (all []store.Event) {
	t.Helper()
	for at := s.Tail(); at <= s.Head(); {
		next, err := s.ReadLog(t.Context(), at, 7, func(e *store.Event) error {
			all = append(all, whole(e))
			return nil
		})
		if err != nil || next == at {
			t.Fatalf("from %d: next %d, %v", at, next, err)
		}
		at = next
	}
	return all
}

// kept returns all events that an archive gets.
func kept(t testing.TB, s *store.Store) (all []store.Kept) {
	t.Helper()
	for at := s.Tail(); at <= s.Head(); {
		next, err := s.ReadKept(t.Context(), at, s.Head()+1, 5, func(k *store.Kept) error {
			all = append(all, store.Kept{Event: whole(&k.Event), Ordinal: k.Ordinal, Commit: k.Commit})
			return nil
		})
		if err != nil || next == at {
			t.Fatalf("from %d: next %d, %v", at, next, err)
		}
		at = next
	}
	return all
}

// shown returns what is shown of kept events.
func shown(t testing.TB, s *store.Store, from []store.Kept) (all []store.Event) {
	t.Helper()
	err := s.Showing(func(shown store.ShownFunc) error {
		for _, k := range from {
			much := store.ShownAll
			if k.Kind == store.KindRecord {
				var err error
				if much, err = shown(k.DID, k.Ordinal, k.Commit); err != nil {
					return err
				}
			}
			if much == store.ShownAll || much == store.ShownDeletes && k.Action == store.Delete {
				all = append(all, k.Event)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestReadKept: what was kept at any earlier time gives, with what is shown now, the events that
// readers of the log see now.
func TestReadKept(t *testing.T) {
	t.Parallel()
	for range storetest.Seeds(4) {
		seed := rand.Uint64()
		s := storetest.Open(t, store.Options{SmallBytes: 1 << 20})
		a := &storetest.Author{T: t, Store: s, Rand: rand.New(rand.NewPCG(seed, 1)), Repos: 8}
		var all []store.Kept
		for range 20 {
			for range 1 + a.Rand.IntN(20) {
				a.Step()
			}
			from := uint64(0)
			if n := len(all); n > 0 {
				from = all[n-1].ID
			}
			for _, k := range kept(t, s) {
				if k.ID > from {
					all = append(all, k)
				}
			}
			if diff := cmp.Diff(logged(t, s), shown(t, s, all)); diff != "" {
				t.Fatalf("seed %d: %s", seed, diff)
			}
		}
	}
}

// segment returns a segment of events from first on and before next.
func segment(s *store.Store, first, next uint64) store.Segment {
	return store.Segment{First: first, Next: next, Events: 1, Time: int64(next), Epoch: s.Epoch(),
		Bytes: 100, Index: 10, Sum: [32]byte{byte(first)}}
}

// TestSegments: segments follow one another, survive a restart, and hold off pruning; if it was not
// held off, the next segment begins anew.
func TestSegments(t *testing.T) {
	t.Parallel()
	fs := storetest.NewCrashFS()
	c := newClock()
	o := store.Options{FS: fs, Dir: "db", Archive: true, Retention: 1, Now: c.now}
	s, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	m := storetest.Records{"app.test.a/1": storetest.Text("x")}
	for n := range 20 {
		imported(t, s, storetest.DID(n+1), m) // two events each
	}
	prune := func(s *store.Store) {
		for range 3 {
			c.tick(o.PruneEvery + 1)
			if err := s.Prune(context.Background(), store.NoProgress); err != nil {
				t.Fatal(err)
			}
		}
	}
	add := func(seg store.Segment, ok bool) {
		t.Helper()
		if err := s.AddSegment(seg); (err == nil) != ok {
			t.Errorf("segment of %d to %d: %v", seg.First, seg.Next, err)
		}
	}
	prune(s)
	if s.Tail() != 1 || s.Oldest() != 1 {
		t.Errorf("without a segment: tail %d, oldest %d", s.Tail(), s.Oldest())
	}
	add(segment(s, 2, 9), false) // not at the tail
	add(segment(s, 1, s.Head()+2), false)
	add(store.Segment{First: 1, Next: 9}, false)
	add(segment(s, 1, 9), true)
	add(segment(s, 1, 9), false)
	add(segment(s, 11, 12), false)
	add(segment(s, 9, 13), true)
	prune(s)
	if s.Tail() != 13 || s.Oldest() != 1 {
		t.Errorf("with segments to 12: tail %d, oldest %d", s.Tail(), s.Oldest())
	}
	want := []store.Segment{segment(s, 1, 9), segment(s, 9, 13)}
	storetest.Check(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o.Archive = false // an operator gives up the archive
	if s, err = store.Open(o); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, s.Segments()); diff != "" {
		t.Error(diff)
	}
	prune(s)
	if s.Tail() <= 13 || len(s.Segments()) > 0 || s.Oldest() != s.Tail() {
		t.Errorf("tail %d, segments %v, oldest %d", s.Tail(), s.Segments(), s.Oldest())
	}
	storetest.Check(t, s)
	imported(t, s, storetest.DID(50), m)
	add(segment(s, 13, 15), false)
	want = []store.Segment{segment(s, s.Tail(), s.Head())}
	add(want[0], true)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s := storetest.Open(t, o); cmp.Diff(want, s.Segments()) != "" {
		t.Error(s.Segments())
	}
}

// TestSegmentsThatDoNotFollow: segments that overlap, leave a hole or go back in time are neither
// added nor loaded, and neither is one whose name leads elsewhere.
func TestSegmentsThatDoNotFollow(t *testing.T) {
	t.Parallel()
	o := store.Options{Dir: "db", Archive: true}
	for what, change := range map[string]func(*store.Segment){
		"nothing":      func(*store.Segment) {},
		"an overlap":   func(g *store.Segment) { g.First = 4 },
		"a hole":       func(g *store.Segment) { g.First = 6 },
		"its time":     func(g *store.Segment) { g.Time = 1 },
		"its end":      func(g *store.Segment) { g.Next = g.First },
		"the last end": func(g *store.Segment) { g.Next = math.MaxUint64 },
		"its events":   func(g *store.Segment) { g.Events = math.MaxInt64 },
		"its epoch":    func(g *store.Segment) { g.Epoch = "../../etc" },
		"its index":    func(g *store.Segment) { g.Index = math.MaxInt64 },
	} {
		o.FS = storetest.NewCrashFS()
		s, err := store.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 10 {
			imported(t, s, storetest.DID(n+1), storetest.Records{"app.test.a/1": storetest.Text("x")})
		}
		second := segment(s, 5, 9)
		change(&second)
		if err := s.AddSegment(segment(s, 1, 5)); err != nil {
			t.Fatal(err)
		}
		if err := s.AddSegment(second); (err == nil) != (what == "nothing") {
			t.Errorf("%s: added with %v", what, err)
		}
		encode, _ := codec(t)
		row, err := encode(store.SegmentRow{Next: second.Next, Events: second.Events, Time: second.Time, Epoch: second.Epoch,
			Bytes: second.Bytes, Index: second.Index, Sum: second.Sum[:]})
		if err = errors.Join(err, store.SetRaw(s, store.SegmentKey(nil, second.First), row), s.Close()); err != nil {
			t.Fatal(err)
		}
		s, err = store.Open(o)
		if (err == nil) != (what == "nothing") || err != nil && !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("%s: opened with %v", what, err)
		}
		if err == nil {
			_ = s.Close()
		}
	}
}

// TestSnapshotOverSegments: a snapshot goes on while the archive has the events after its head, which
// the log of the store has lost.
func TestSnapshotOverSegments(t *testing.T) {
	t.Parallel()
	for _, archived := range []bool{true, false} {
		s := storetest.Open(t, store.Options{Archive: archived})
		m := storetest.Records{"app.test.a/1": storetest.Text("x")}
		imported(t, s, storetest.DID(1), m)
		f, err := filter.CompileEvents(filter.EventsConfig{})
		if err != nil {
			t.Fatal(err)
		}
		pass := s.BeginSnapshot(f)
		for n := range 10 {
			imported(t, s, storetest.DID(n+2), m)
		}
		if archived {
			if err := s.AddSegment(segment(s, 1, s.Head()+1)); err != nil {
				t.Fatal(err)
			}
		}
		if err := store.Prune(t.Context(), s, s.Head()+1); err != nil || s.Tail() <= pass.Head+1 {
			t.Fatal(s.Tail(), err)
		}
		records := 0
		_, _, err = s.ReadRecords(t.Context(), pass, store.RecordPosition{}, 1000, func(*store.Event, store.RecordPosition) bool {
			records++
			return true
		})
		if archived && (err != nil || records == 0) || !archived && !errors.Is(err, store.ErrOutdatedCursor) {
			t.Errorf("archive %t: %d records, %v", archived, records, err)
		}
	}
}

// TestSegmentsKeepDropped: the deletes of a dropped repository are shown for as long as the archive
// has them.
func TestSegmentsKeepDropped(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{Archive: true})
	a := &storetest.Author{T: t, Store: s, Rand: rand.New(rand.NewPCG(1, 1)), Repos: 3}
	for len(dropped(t, s)) == 0 || s.Counts()["events"] < 400 {
		a.Step()
	}
	rows := dropped(t, s)
	all := kept(t, s)
	want := shown(t, s, all)
	if err := s.AddSegment(segment(s, 1, s.Head()+1)); err != nil {
		t.Fatal(err)
	}
	if err := store.Prune(t.Context(), s, s.Head()+1); err != nil {
		t.Fatal(err)
	}
	if err := s.CollectGarbage(t.Context(), store.NoProgress); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(rows, dropped(t, s)); diff != "" || s.Tail() != s.Head()+1 {
		t.Error(s.Tail(), diff)
	}
	if diff := cmp.Diff(want, shown(t, s, all)); diff != "" {
		t.Error(diff)
	}
}

func dropped(t testing.TB, s *store.Store) (keys []string) {
	t.Helper()
	err := store.ScanRaw(s, store.SpaceDropped, func(key, _ []byte) { keys = append(keys, string(key)) })
	if err != nil {
		t.Fatal(err)
	}
	return keys
}
