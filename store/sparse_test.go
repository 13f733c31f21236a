package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"cistern/filter"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
)

// sparseCollections has collections that are frequent, rare and absent, one of which is the
// beginning of another.
var sparseCollections = []string{"app.test.a", "app.test.ab", "app.test.a.b", "app.test.b", "app.test.c", "com.rare.x"}

// sparseFilter returns a filter of some kinds and collections.
func sparseFilter(t testing.TB, rng *rand.Rand) *filter.Events {
	t.Helper()
	var c filter.EventsConfig
	for range rng.IntN(3) {
		c.Collections = append(c.Collections, append([]string{"app.test.*", "app.*", "com.none.x", "com.*"}, sparseCollections...)[rng.IntN(4+len(sparseCollections))])
	}
	for _, kind := range filter.EventKinds {
		if rng.IntN(3) == 0 {
			c.Kinds = append(c.Kinds, kind)
		}
	}
	return eventsFilter(t, c)
}

func sparsePath(rng *rand.Rand) string {
	c := sparseCollections[min(rng.IntN(len(sparseCollections)+4), len(sparseCollections)-1)%len(sparseCollections)]
	if rng.IntN(30) > 0 && c == "com.rare.x" {
		c = "app.test.a"
	}
	return fmt.Sprint(c, "/", rng.IntN(40))
}

func sparseRecords(rng *rand.Rand, n int) storetest.Records {
	m := storetest.Records{"no path": storetest.Text("hidden")}
	for range n {
		m[sparsePath(rng)] = storetest.Text(fmt.Sprint(rng.IntN(n + 1)))
	}
	return m
}

var errEnough = errors.New("enough")

// eventTexts reads events from a cursor on to the head, by pages of random sizes some of which fn
// ends.
func eventTexts(t testing.TB, rng *rand.Rand, s *store.Store, cursor uint64, wanted func(*store.Event) bool,
	read func(ctx context.Context, cursor uint64, maxEvents int, fn func(*store.Event) error) (uint64, error),
) (out []string) {
	t.Helper()
	for head := s.Head(); cursor <= head; {
		left := 1 + rng.IntN(60)
		last := uint64(0)
		next, err := read(context.WithoutCancel(t.Context()), cursor, 1+rng.IntN(100), func(e *store.Event) error {
			if e.ID < cursor || e.ID <= last {
				t.Errorf("event %d after %d, read from %d", e.ID, last, cursor)
			}
			last = e.ID
			if wanted(e) {
				out = append(out, fmt.Sprintln(e.ID, e.Time, e.Kind, e.DID, e.Live, e.Rev, e.Action, string(e.Collection), string(e.Rkey), e.CID, string(e.Record), e.Status, e.Handle))
			}
			if left--; left == 0 {
				return errEnough
			}
			return nil
		})
		if errors.Is(err, errEnough) {
			next, err = last+1, nil
		}
		if err != nil || next <= cursor || next <= last {
			t.Fatalf("from %d to %d, the last event was %d, the head is %d: %v", cursor, next, last, head, err)
		}
		cursor = next
	}
	return out
}

// sparseAsFull compares a sparse reading with a full one.
func sparseAsFull(t testing.TB, rng *rand.Rand, s *store.Store) {
	t.Helper()
	f := sparseFilter(t, rng)
	cursor := s.Tail() + rng.Uint64N(s.Head()+2-s.Tail())
	wanted := func(e *store.Event) bool {
		return f.Kind(uint8(e.Kind)) && (e.Kind != store.KindRecord || f.Collection(e.Collection))
	}
	want := eventTexts(t, rng, s, cursor, wanted, s.ReadLogOnDisk)
	got := eventTexts(t, rng, s, cursor, func(e *store.Event) bool {
		if !wanted(e) {
			t.Errorf("event %d is not wanted", e.ID)
		}
		return true
	}, func(ctx context.Context, cursor uint64, maxEvents int, fn func(*store.Event) error) (uint64, error) {
		return s.ReadLogSparse(ctx, f, cursor, maxEvents, fn)
	})
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("from %d (-full +sparse):\n%s", cursor, d)
	}
}

// sparseScript changes a store at random: everything that writes to the log, hides some of it, or
// deletes it.
type sparseScript struct {
	t    testing.TB
	rng  *rand.Rand
	s    *store.Store
	w    *world
	live []string // imported repositories that are shown
	away []string // imported repositories that are hidden
	n    int      // repositories so far
}

func (c *sparseScript) pick(from *[]string) (did string, ok bool) {
	if len(*from) == 0 {
		return "", false
	}
	i := c.rng.IntN(len(*from))
	did = (*from)[i]
	*from = append((*from)[:i:i], (*from)[i+1:]...)
	return did, true
}

func (c *sparseScript) step() {
	c.t.Helper()
	switch n := c.rng.IntN(20); {
	case n < 3 || len(c.live) == 0:
		for range 1 + c.rng.IntN(4) { // of one group
			c.n++
			did := storetest.DID(c.n)
			c.w.importRepo(c.t, c.s, did, sparseRecords(c.rng, c.rng.IntN(60)))
			c.live = append(c.live, did)
		}
		if err := c.s.FlushImports(); err != nil {
			c.t.Fatal(err)
		}
	case n == 3: // hidden
		if did, ok := c.pick(&c.live); ok {
			edit(c.t, c.s, did, func(b *store.Batch, r *store.Repo) error {
				r.Status = store.StatusDeactivated
				b.Account(r)
				return nil
			})
			c.away = append(c.away, did)
		}
	case n == 4: // shown again
		if did, ok := c.pick(&c.away); ok {
			edit(c.t, c.s, did, func(b *store.Batch, r *store.Repo) error {
				r.Status = store.StatusActive
				b.Account(r)
				return b.Relist(r)
			})
			c.live = append(c.live, did)
		}
	case n == 5: // wiped
		if did, ok := c.pick(&c.live); ok {
			c.w.wipe(c.t, c.s, did)
		}
	case n == 6: // dropped
		if did, ok := c.pick(&c.live); ok {
			var ops []store.Op
			for _, p := range held(c.t, c.s)[did].Paths() {
				ops = append(ops, drop(p))
			}
			dropRepo(c.t, c.s, did, ops, c.rng.IntN(2) == 0)
		}
	case n == 7:
		edit(c.t, c.s, c.live[0], func(b *store.Batch, r *store.Repo) error { b.Identity(r); return nil })
	case n == 8:
		if err := store.Collect(c.s); err != nil {
			c.t.Fatal(err)
		}
	case n == 9:
		to := c.s.Tail() + c.rng.Uint64N(c.s.Head()+2-c.s.Tail())
		if err := store.Prune(context.WithoutCancel(c.t.Context()), c.s, to); err != nil {
			c.t.Fatal(err)
		}
	default:
		c.commit(c.live[c.rng.IntN(len(c.live))])
	}
}

func (c *sparseScript) commit(did string) {
	c.t.Helper()
	ops := map[string]store.Op{}
	for range 1 + c.rng.IntN(6) {
		p := sparsePath(c.rng)
		ops[p] = drop(p)
		if c.rng.IntN(3) > 0 {
			ops[p] = put(p, fmt.Sprint(c.rng.IntN(1000)))
		}
	}
	var list []store.Op
	for _, op := range ops {
		list = append(list, op)
	}
	edit(c.t, c.s, did, func(b *store.Batch, r *store.Repo) error { return b.Apply(r, true, r.Rev, list) })
}

// TestSparse: whatever happened to a store, and wherever a crash cut it off, a sparse reading has
// the events of the full one that its filter wants.
func TestSparse(t *testing.T) {
	t.Parallel()
	for range storetest.Seeds(8) {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			rng := seeded(t)
			fs := storetest.NewCrashFS()
			o := store.Chunked(store.Options{Dir: "db"}, uint8(2+rng.IntN(5)), uint8(6+rng.IntN(3)))
			c := &sparseScript{t: t, rng: rng, w: newWorld()}
			open := func(fs *storetest.CrashFS, step func(string)) *store.Store {
				o := o
				o.FS, o.Step = fs, step
				s, err := store.Open(o)
				if err != nil {
					t.Fatal(err)
				}
				storetest.Check(t, s)
				return s
			}
			end := func(s *store.Store) {
				storetest.Check(t, s)
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}
			crash := func(string) {
				if c.s == nil || rng.IntN(60) > 0 {
					return
				}
				s := open(fs.Clone(rng, rng.IntN(101)), nil)
				for range 3 {
					sparseAsFull(t, rng, s)
				}
				end(s)
			}
			c.s = open(fs, crash)
			for n := range 120 {
				c.step()
				sparseAsFull(t, rng, c.s)
				if n%40 == 39 { // goes on as after a crash, when all was durable
					s := c.s
					fs, c.s = fs.Clone(rng, rng.IntN(101)), nil
					end(s)
					c.s = open(fs, crash)
				}
			}
			s := c.s
			c.s = nil
			end(s)
		})
	}
}

// TestSparseWhileWriting: a reader that follows the log sparsely while it grows gets what a full
// reading has in the end.
func TestSparseWhileWriting(t *testing.T) {
	t.Parallel()
	rng := seeded(t)
	s := storetest.Open(t, store.Chunked(store.Options{}, 4, 7))
	var writers, readers sync.WaitGroup
	for n := range 3 {
		c := &sparseScript{t: t, rng: rand.New(rand.NewPCG(rng.Uint64(), 1)), s: s, w: newWorld()}
		did := storetest.DID(n + 1)
		imported(t, s, did, sparseRecords(c.rng, 20))
		writers.Go(func() {
			for range 150 {
				c.commit(did)
			}
		})
		writers.Go(func() { // imports, whose entries span chunks
			rng := rand.New(rand.NewPCG(uint64(n), 2))
			for i := range 10 {
				imported(t, s, storetest.DID(100+n*10+i), sparseRecords(rng, 60))
			}
		})
	}
	done := make(chan struct{})
	for range 3 {
		rng := rand.New(rand.NewPCG(rng.Uint64(), 1))
		f := eventsFilter(t, filter.EventsConfig{Kinds: []string{"record"}, Collections: []string{sparseCollections[rng.IntN(3)], "com.rare.*"}})
		readers.Go(func() {
			var got, want []uint64
			next := uint64(1)
			for ended := false; !ended || next <= s.Head(); {
				select {
				case <-done:
					ended = true
				default:
				}
				var err error
				next, err = s.ReadLogSparse(context.WithoutCancel(t.Context()), f, next, 1+rng.IntN(50), func(e *store.Event) error {
					got = append(got, e.ID)
					return nil
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
			for next = 1; next <= s.Head(); {
				var err error
				next, err = s.ReadLogOnDisk(context.WithoutCancel(t.Context()), next, 1000, func(e *store.Event) error {
					if f.Collection(e.Collection) {
						want = append(want, e.ID)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("-full +sparse:\n%s", d)
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
}

// TestSparseCursor: a cursor outside the log is refused as by ReadLog, and 0 is the oldest event.
func TestSparseCursor(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Chunked(store.Options{}, 2, 4))
	did := storetest.DID(1)
	imported(t, s, did, storetest.Records{"app.test.a/1": storetest.Text("1")})
	for n := range 30 {
		one(t, s, did, fmt.Sprint("app.test.b/", n), "x")
	}
	one(t, s, did, "app.test.c/1", "x")
	if err := store.Prune(t.Context(), s, 5); err != nil {
		t.Fatal(err)
	}
	f := eventsFilter(t, filter.EventsConfig{Collections: []string{"app.test.c"}, Kinds: []string{"record"}})
	for _, row := range []struct {
		cursor uint64
		want   error
	}{{4, store.ErrOutdatedCursor}, {5, nil}, {0, nil}, {34, nil}, {35, store.ErrFutureCursor}} {
		next, err := s.ReadLogSparse(t.Context(), f, row.cursor, 10, func(*store.Event) error { return nil })
		if !errors.Is(err, row.want) || err == nil && (next <= row.cursor && row.cursor < 34) {
			t.Errorf("cursor %d: %d, %v, want %v", row.cursor, next, err, row.want)
		}
		if _, err := s.ReadLogSparse(t.Context(), f, row.cursor, 0, nil); !errors.Is(err, row.want) {
			t.Errorf("cursor %d is checked: %v, want %v", row.cursor, err, row.want)
		}
	}
}

// TestSparseHead: events that are not durable are not passed, whether their chunk has ended or not.
func TestSparseHead(t *testing.T) {
	t.Parallel()
	for _, chunk := range []uint8{1, 6} {
		s := storetest.Open(t, store.Chunked(store.Options{}, chunk, 8))
		did := storetest.DID(1)
		imported(t, s, did, storetest.Records{"app.test.a/1": storetest.Text("1")})
		f := eventsFilter(t, filter.EventsConfig{Collections: []string{"app.test.a"}})
		read := func() (ids []uint64, next uint64) {
			next, err := s.ReadLogSparse(t.Context(), f, 1, 100, func(e *store.Event) error {
				ids = append(ids, e.ID)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			return ids, next
		}
		head := s.Head()
		unlock := s.Lock(did)
		r := row(t, s, did)
		b := s.NewBatch()
		ops := []store.Op{put("app.test.a/2", "2"), put("app.test.a/3", "3"), put("app.test.a/4", "4")}
		if err := b.Apply(&r, true, r.Rev, ops); err != nil {
			t.Fatal(err)
		}
		b.ForgeRepo(&r)
		wait, err := b.Commit()
		unlock()
		if err != nil {
			t.Fatal(err)
		}
		if ids, next := read(); len(ids) != 1 || next != head+1 {
			t.Errorf("before the sync: %v, next %d", ids, next)
		}
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		if ids, next := read(); len(ids) != 4 || next != head+4 {
			t.Errorf("after it: %v, next %d", ids, next)
		}
	}
}

// TestSparseReadsLittle: the postings of a bucket without a wanted event are passed by one seek, so
// that a page passes many events that are not wanted.
func TestSparseReadsLittle(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Chunked(store.Options{}, 3, 6))
	did := storetest.DID(1)
	imported(t, s, did, storetest.Records{"com.rare.x/1": storetest.Text("1")})
	for n := range 1000 {
		one(t, s, did, fmt.Sprint("app.test.b/", n%9), fmt.Sprint(n))
	}
	f := eventsFilter(t, filter.EventsConfig{Collections: []string{"com.rare.x"}, Kinds: []string{"record"}})
	n := 0
	next, err := s.ReadLogSparse(t.Context(), f, 0, 10, func(*store.Event) error { n++; return nil })
	if err != nil || n != 1 || next < 990 {
		t.Errorf("%d events, next %d, %v", n, next, err)
	}
	rows := 0
	if err := store.ScanRaw(s, store.SpacePosting, func(_, _ []byte) { rows++ }); err != nil {
		t.Fatal(err)
	}
	if rows != 1002/8+2 { // also that it is synced
		t.Errorf("%d rows", rows)
	}
	// The rows of buckets before the tail's are deleted.
	if err := store.Prune(t.Context(), s, 900); err != nil {
		t.Fatal(err)
	}
	rows = 0
	if err := store.ScanRaw(s, store.SpacePosting, func(_, _ []byte) { rows++ }); err != nil {
		t.Fatal(err)
	}
	if want := 1002/8 - 900/64*8; rows != want {
		t.Errorf("%d rows after pruning, want %d", rows, want)
	}
}
