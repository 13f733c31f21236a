package archive_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"cistern/archive"
	"cistern/filter"
	"cistern/objects"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
)

// none takes no progress.
func none(done, total int64) {}

// clock moves a millisecond with each reading, the same in two stores that do the same.
type clock struct{ us atomic.Int64 }

func (c *clock) now() time.Time { return time.UnixMicro(1_700_000_000_000_000 + c.us.Load()) }

// world is a store whose log moves to an archive, and a twin that keeps everything.
type world struct {
	t       *testing.T
	rng     *rand.Rand
	clock   *clock
	to      objects.Destination
	o       store.Options
	s, twin *store.Store
	a       *archive.Archive
	authors [2]*storetest.Author
}

func newWorld(t *testing.T, seed uint64, to objects.Destination) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 7)), clock: new(clock), to: to}
	w.o = store.Options{FS: storetest.NewCrashFS(), Dir: "db", Archive: true, Retention: time.Minute,
		Now: w.clock.now, SmallBytes: 1 << 20}
	s, err := store.Open(w.o)
	if err != nil {
		t.Fatal(err)
	}
	w.twin = storetest.Open(t, store.Options{Now: w.clock.now, SmallBytes: 1 << 20})
	w.authors[1] = &storetest.Author{T: t, Store: w.twin, Rand: rand.New(rand.NewPCG(seed, 1)),
		Repos: 10}
	w.authors[0] = &storetest.Author{T: t, Rand: rand.New(rand.NewPCG(seed, 1)), Repos: 10}
	w.use(s)
	return w
}

// use goes on with a store, which was opened again.
func (w *world) use(s *store.Store) {
	w.s, w.authors[0].Store = s, s
	w.a = w.open(w.to, nil)
}

func (w *world) open(to objects.Destination, step func(string)) *archive.Archive {
	w.t.Helper()
	a, err := archive.New(archive.Options{Store: w.s, Destination: to, SegmentBytes: 4 << 10,
		FrameEvents: 1 + w.rng.IntN(40), Step: step})
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

func (w *world) end() {
	storetest.Check(w.t, w.s)
	if err := w.s.Close(); err != nil {
		w.t.Error(err)
	}
}

// write makes the same changes in both stores.
func (w *world) write(steps int) {
	for range steps {
		w.clock.us.Add(1000)
		w.authors[0].Step()
		w.authors[1].Step()
	}
	if got, want := storetest.Head(w.t, w.s), storetest.Head(w.t, w.twin); got != want {
		w.t.Fatalf("the heads are %d and %d", got, want)
	}
}

// prune removes everything that the archive allows.
func (w *world) prune() {
	w.t.Helper()
	for range 3 {
		w.clock.us.Add((2 * time.Minute).Microseconds())
		err := w.s.Prune(context.Background(), none)
		if err = errors.Join(err, w.s.CollectGarbage(context.Background(), none)); err != nil {
			w.t.Fatal(err)
		}
	}
	if all := w.s.Segments(); len(all) > 0 && w.s.Tail() == 1 {
		w.t.Fatalf("nothing is pruned, with %d segments", len(all))
	}
}

// reader is the log of a store, or of an archive.
type reader interface {
	ReadLog(context.Context, uint64, int, func(*store.Event) error) (uint64, error)
	ReadLogSparse(context.Context, *filter.Events, uint64, int, func(*store.Event) error) (uint64,
		error)
	FirstSince(int64) (uint64, error)
}

// replay returns what f wants of the events from a cursor on, by pages of some ids.
func replay(t testing.TB, r reader, f *filter.Events, cursor, head uint64, ids int) []store.Event {
	t.Helper()
	all := []store.Event{}
	for last := uint64(0); cursor <= head; {
		add := func(e *store.Event) error {
			if e.ID <= last {
				t.Errorf("event %d after %d", e.ID, last)
			}
			last = e.ID
			wanted := f.Kind(uint8(e.Kind)) && f.DID(e.DID) && (e.Kind != store.KindRecord ||
				f.Collection(e.Collection) && f.Record(uint8(e.Action), e.Live))
			if !wanted {
				return nil
			}
			c := *e
			c.Collection, c.Rkey = append([]byte{}, e.Collection...), append([]byte{}, e.Rkey...)
			c.Record = append([]byte{}, e.Record...)
			all = append(all, c)
			return nil
		}
		var next uint64
		var err error
		if f.Sparse() {
			next, err = r.ReadLogSparse(t.Context(), f, cursor, ids, add)
		} else {
			next, err = r.ReadLog(t.Context(), cursor, ids, add)
		}
		if err != nil || next <= cursor {
			t.Fatalf("from %d: next %d, head %d, %v", cursor, next, head, err)
		}
		cursor = next
	}
	return all
}

// filter returns one of some filters.
func (w *world) filter() *filter.Events {
	c := []filter.EventsConfig{{Kinds: filter.EventKinds}, {Collections: []string{"app.test.c1"}},
		{Kinds: []string{"account", "identity", "repo"}}, {DIDs: []string{storetest.DID(1), storetest.DID(4)}},
		{Collections: []string{"app.test.*"}, Actions: []string{"delete"}}, {Live: "true"},
		{Kinds: []string{"record", "repo"}, Collections: []string{"app.test.c2", "com.example.none"}},
	}[w.rng.IntN(7)]
	f, err := filter.CompileEvents(c)
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

// same compares some replays with those of the twin.
func (w *world) same(times int) {
	w.t.Helper()
	head := w.twin.Head()
	for range times {
		f, cursor := w.filter(), 1+w.rng.Uint64N(head)
		if w.rng.IntN(3) == 0 {
			cursor = 1
		}
		want := replay(w.t, w.twin, f, cursor, head, 1000)
		got := replay(w.t, w.a, f, cursor, head, 1+w.rng.IntN(60))
		if diff := cmp.Diff(want, got); diff != "" {
			w.t.Fatalf("from %d, tail %d of %d, %d segments: %s", cursor, w.s.Tail(), head,
				len(w.s.Segments()), diff)
		}
		at := w.clock.now().UnixMicro() - w.rng.Int64N(w.clock.us.Load()+2)
		a, err := w.a.FirstSince(at)
		b, terr := w.twin.FirstSince(at)
		if err = errors.Join(err, terr); err != nil {
			w.t.Fatal(err)
		}
		all, err := filter.CompileEvents(filter.EventsConfig{Kinds: filter.EventKinds})
		if err != nil {
			w.t.Fatal(err)
		}
		if diff := cmp.Diff(replay(w.t, w.twin, all, b, head, 1000), replay(w.t, w.a, all, a, head, 50)); diff != "" {
			w.t.Fatalf("since %d: from %d instead of %d: %s", at, a, b, diff)
		}
	}
}

func seeds(t *testing.T, n uint64, test func(t *testing.T, seed uint64)) {
	for range storetest.Seeds(n) {
		seed := rand.Uint64()
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { test(t, seed) })
	}
}
