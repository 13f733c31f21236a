package store_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cistern/filter"
	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// The store of TestSparseCost has about one record in ten from live commits, and three collections
// that are each a thousandth of all records:
//
//   - com.scattered.x: one record in each repository, imported;
//   - com.dense.x: a hundred records in one repository of a hundred, imported;
//   - com.live.x: live commits of random repositories.
//
// The usual collections are app.bsky.feed.c0 to c3 of benchWorld.
const costRepo = 1000 // records of a repository

type costStore struct {
	t       *testing.T
	dir     string
	records int
	files   fileBytes
}

// fileBytes is a file system that counts what is read of each table.
type fileBytes struct {
	vfs.FS
	mu   sync.Mutex
	read map[string]*atomic.Int64 // mu guards: by name
}

func (f *fileBytes) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	file, err := f.FS.Open(name, opts...)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.read[filepath.Base(name)]
	if n == nil {
		n = new(atomic.Int64)
		f.read[filepath.Base(name)] = n
	}
	return countingFile{file, n}, nil
}

func (c *costStore) open() *store.Store {
	c.t.Helper()
	c.files = fileBytes{FS: vfs.Default, read: map[string]*atomic.Int64{}}
	s, err := store.Open(store.Options{Dir: c.dir, FS: &c.files})
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// build writes the store: imports, and live commits between them.
func (c *costStore) build(rng *rand.Rand) {
	c.t.Helper()
	s := c.open()
	w := newBenchWorld(c.t)
	live := 0
	for n := 0; n*costRepo < c.records*9/10; n++ {
		leaves := w.repository(costRepo)
		named := func(collection string, from, to int) {
			for i := from; i < to; i++ {
				leaves[i].path = []byte(collection + "/" + storetest.Rev(i))
			}
		}
		named("com.scattered.x", 999, 1000)
		if n%100 == 10 {
			named("com.dense.x", 899, 999)
		}
		benchAppend(c.t, s, storetest.DID(n+1), leaves)
		if n%50 == 9 { // groups of 14 MB
			if err := s.FlushImports(); err != nil {
				c.t.Fatal(err)
			}
		}
		live = c.commits(s, w, n/2+1, live)
	}
	if err := s.FlushImports(); err != nil {
		c.t.Fatal(err)
	}
	quiet(s, 5, 50*time.Millisecond)
	if err := s.Close(); err != nil {
		c.t.Fatal(err)
	}
}

// commits has some of the first repositories commit, in one batch: one op each.
func (c *costStore) commits(s *store.Store, w *benchWorld, repos, live int) int {
	c.t.Helper()
	b := s.NewBatch()
	done := map[int]bool{}
	for range costRepo / 9 {
		n := 1 + w.rng.IntN(repos)
		r, err := s.Repo(storetest.DID(n))
		if err != nil {
			c.t.Fatal(err)
		}
		if done[n] || r.Ordinal == 0 { // in an open group
			continue
		}
		done[n] = true
		path := fmt.Sprintf("app.bsky.feed.c%d/%s", w.rng.IntN(4), storetest.Rev(1<<45+live))
		if live++; live%100 == 1 {
			path = "com.live.x/" + storetest.Rev(1<<45+live)
		}
		body := w.record()
		op := store.Op{Path: []byte(path), CID: repo.HashCID(body), Record: body}
		if err := b.Apply(&r, true, r.Rev, []store.Op{op}); err != nil {
			c.t.Fatal(err)
		}
		b.ForgeRepo(&r)
	}
	if err := b.CommitSync(); err != nil {
		c.t.Fatal(err)
	}
	return live
}

// engineRead returns the bytes of blocks that the engine has read for iterators, without those that
// were in its cache.
func engineRead(s *store.Store) (n uint64) {
	for _, c := range store.Metrics(s).CategoryStats {
		n += c.CategoryStats.BlockBytes - c.CategoryStats.BlockBytesInCache
	}
	return n
}

// measure reads from an empty cache, and returns the bytes read for each byte of the records read.
func (c *costStore) measure(name string, read func(s *store.Store, fn func(*store.Event) error) error) (ratio float64) {
	c.t.Helper()
	s := c.open()
	defer s.Close()
	before, disk := engineRead(s), c.bySpace(s)
	records, bytes, start := 0, 0, cpuSeconds()
	err := read(s, func(e *store.Event) error {
		records++
		bytes += len(e.Record)
		return nil
	})
	if err != nil || records == 0 {
		c.t.Fatalf("%s: %d records, %v", name, records, err)
	}
	cpu := cpuSeconds() - start
	n := engineRead(s) - before
	var parts []string
	now := c.bySpace(s)
	for space, b := range now {
		if b -= disk[space]; b > 0 {
			parts = append(parts, fmt.Sprintf("%s %.2f", space, float64(b)/float64(bytes)))
		}
	}
	slices.SortFunc(parts, func(a, b string) int { return cmp.Compare(a, b) })
	ratio = float64(n) / float64(bytes)
	c.t.Logf("%-32s %8d records, %11d bytes; the engine read %11d: %8.2f a byte; %.2f s CPU; of files: %s",
		name, records, bytes, n, ratio, cpu, strings.Join(parts, ", "))
	return ratio
}

// bySpace returns the bytes read of the tables of each keyspace.
func (c *costStore) bySpace(s *store.Store) map[string]int64 {
	c.t.Helper()
	levels, err := store.Tables(s)
	if err != nil {
		c.t.Fatal(err)
	}
	spaces := map[string]string{}
	for _, tables := range levels {
		for _, t := range tables {
			spaces[fmt.Sprintf("%06d.sst", t.FileNum)] = store.SpaceNames[t.Smallest.UserKey[0]]
		}
	}
	read := map[string]int64{}
	c.files.mu.Lock()
	defer c.files.mu.Unlock()
	for name, n := range c.files.read {
		if space := spaces[name]; space != "" {
			read[space] += n.Load()
		}
	}
	return read
}

// TestSparseCost measures what a replay and a snapshot of a collection read, for each byte of its
// records, when the collection has a thousandth of all records. CISTERNTEST_SPARSE is the number of
// records, 20,000 if it is not set; BENCHMARKS.md has the figures.
func TestSparseCost(t *testing.T) {
	storetest.WithoutRace(t)
	t.Parallel()
	c := &costStore{t: t, dir: t.TempDir(), records: 20_000}
	if v := os.Getenv("CISTERNTEST_SPARSE"); v != "" {
		var err error
		if c.records, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	c.build(seeded(t))
	replay := func(f *filter.Events) func(s *store.Store, fn func(*store.Event) error) error {
		return func(s *store.Store, fn func(*store.Event) error) (err error) {
			for next := uint64(1); next <= s.Head() && err == nil; {
				if f.Sparse() {
					next, err = s.ReadLogSparse(t.Context(), f, next, 2000, fn)
				} else {
					next, err = s.ReadLog(t.Context(), next, 2000, fn)
				}
			}
			return err
		}
	}
	snapshot := func(f *filter.Events) func(s *store.Store, fn func(*store.Event) error) error {
		return func(s *store.Store, fn func(*store.Event) error) (err error) {
			pass, at, ended := s.BeginSnapshot(f), store.RecordPosition{}, false
			for !ended && err == nil {
				at, ended, err = s.ReadRecords(t.Context(), pass, at, 2000,
					func(e *store.Event, _ store.RecordPosition) bool { return fn(e) == nil })
			}
			return err
		}
	}
	whole := c.measure("replay of everything", replay(new(filter.Events)))
	for _, name := range []string{"com.dense.x", "com.scattered.x", "com.live.x"} {
		f := eventsFilter(t, filter.EventsConfig{Collections: []string{name}, Kinds: []string{"record"}})
		full := c.measure("full replay of "+name, func(s *store.Store, fn func(*store.Event) error) error {
			return replay(new(filter.Events))(s, func(e *store.Event) error {
				if f.Collection(e.Collection) {
					return fn(e)
				}
				return nil
			})
		})
		sparse := c.measure("sparse replay of "+name, replay(f))
		c.measure("snapshot of "+name, snapshot(f))
		if sparse > full/2 {
			t.Errorf("%s: a sparse replay reads %.1f bytes a byte, a full one %.1f (of everything %.2f)", name, sparse, full, whole)
		}
	}
}

// BenchmarkPostings adds events of single ops to the postings, over 300 collections of which few are
// frequent, and writes the rows of chunks to a batch. The rows also cost some 2 µs each until they
// have settled.
func BenchmarkPostings(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	zipf := rand.NewZipf(rng, 1.5, 1, 299)
	paths := make([][]byte, 1<<16)
	for i := range paths {
		paths[i] = fmt.Appendf(nil, "app.collection%d.name/3kxxxxxxxxxxx", zipf.Uint64())
	}
	s := storetest.Open(b, store.Options{})
	rows := 0
	b.ReportAllocs()
	b.ResetTimer()
	start := cpuSeconds()
	store.AddToPostings(b, s, b.N, func(n int) []byte { return paths[n%len(paths)] }, func() { rows++ })
	b.ReportMetric((cpuSeconds()-start)/float64(b.N)*1e9, "cpu-ns/event")
	b.ReportMetric(float64(rows)/float64(b.N)*(1<<store.ChunkBits), "rows/chunk")
}
