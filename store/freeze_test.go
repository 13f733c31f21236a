package store_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

// changesFS counts the operations that change something.
type changesFS struct {
	vfs.FS
	n *atomic.Int64
}

type changesFile struct {
	vfs.File
	n *atomic.Int64
}

func (c changesFS) file(f vfs.File, err error) (vfs.File, error) {
	c.n.Add(1)
	return changesFile{f, c.n}, err
}

func (c changesFS) Create(name string, w vfs.DiskWriteCategory) (vfs.File, error) {
	return c.file(c.FS.Create(name, w))
}

func (c changesFS) OpenReadWrite(name string, w vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return c.file(c.FS.OpenReadWrite(name, w, o...))
}

func (c changesFS) ReuseForWrite(from, to string, w vfs.DiskWriteCategory) (vfs.File, error) {
	return c.file(c.FS.ReuseForWrite(from, to, w))
}

func (c changesFS) OpenDir(name string) (vfs.File, error) {
	f, err := c.FS.OpenDir(name)
	return changesFile{f, c.n}, err
}

func (c changesFS) Link(from, to string) error   { c.n.Add(1); return c.FS.Link(from, to) }
func (c changesFS) Rename(from, to string) error { c.n.Add(1); return c.FS.Rename(from, to) }
func (c changesFS) Remove(name string) error     { c.n.Add(1); return c.FS.Remove(name) }
func (c changesFS) RemoveAll(name string) error  { c.n.Add(1); return c.FS.RemoveAll(name) }
func (c changesFS) MkdirAll(name string, p os.FileMode) error {
	c.n.Add(1)
	return c.FS.MkdirAll(name, p)
}

func (f changesFile) Write(b []byte) (int, error) { f.n.Add(1); return f.File.Write(b) }
func (f changesFile) WriteAt(b []byte, at int64) (int, error) {
	f.n.Add(1)
	return f.File.WriteAt(b, at)
}
func (f changesFile) Preallocate(at, n int64) error { f.n.Add(1); return f.File.Preallocate(at, n) }
func (f changesFile) Sync() error                   { f.n.Add(1); return f.File.Sync() }
func (f changesFile) SyncData() error               { f.n.Add(1); return f.File.SyncData() }
func (f changesFile) SyncTo(n int64) (bool, error)  { f.n.Add(1); return f.File.SyncTo(n) }

// TestFreezeCopies freezes a store many times under writes, imports, flushes and compactions, and
// copies its files one by one. Nothing may change meanwhile, and the copy must be the store.
//
// CISTERNTEST_FREEZES is how often (10).
func TestFreezeCopies(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	rounds := 10
	if text := os.Getenv("CISTERNTEST_FREEZES"); text != "" {
		rounds, _ = strconv.Atoi(text)
	}
	rng := seeded(t)
	var changes atomic.Int64
	dir := t.TempDir()
	o := store.Options{Dir: dir, FS: changesFS{vfs.Default, &changes}, SmallBytes: 1, GroupBytes: 20 << 10, TableBytes: 8 << 10,
		GroupAge: 5 * time.Millisecond, MemTableBytes: 64 << 10}
	s := storetest.Open(t, o)
	ctx, stop := context.WithCancel(t.Context())
	running, end := context.WithCancel(t.Context())
	var all, run sync.WaitGroup
	defer run.Wait()
	defer end() // imports of the writers wait for Run
	defer all.Wait()
	defer stop()
	run.Go(func() {
		if err := s.Run(running); err != nil {
			t.Error(err)
		}
	})
	for n := range 3 {
		w := writer{t: t, s: s, rng: rand.New(rand.NewPCG(rng.Uint64(), uint64(n))), world: newWorld(), base: n << 10}
		w.world.revNo = n << 16
		all.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				w.run(1)
				if _, err := s.HostID(fmt.Sprintf("pds%d.w%d.example", i, n)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	busy := 0
	for round := range rounds {
		time.Sleep(time.Duration(rng.Int64N(int64(30 * time.Millisecond)))) // a random moment
		if err := s.Freeze(ctx); err != nil {
			t.Fatal(err)
		}
		if m := store.EngineMetrics(s); m.Compact.NumInProgress > 0 || m.MemTable.Count > 1 {
			busy++
		}
		frozenCopy(t, s, o, &changes, round)
	}
	t.Logf("%d of %d times a flush or a compaction was stopped in the middle", busy, rounds)
}

// frozenCopy copies a frozen store and compares.
func frozenCopy(t *testing.T, s *store.Store, o store.Options, changes *atomic.Int64, round int) {
	t.Helper()
	copied := filepath.Join(t.TempDir(), "copy")
	files, before := filesOf(t, o.Dir), changes.Load()
	if err := os.CopyFS(copied, os.DirFS(o.Dir)); err != nil {
		t.Fatal(err)
	}
	rows, sum := store.AllRows(t, s)
	head, counts := s.Head(), s.Counts()
	if err := s.NewBatch().CommitUnlessFrozen(); !errors.Is(err, store.ErrFrozen) {
		t.Errorf("round %d: a commit at a frozen store: %v", round, err)
	}
	for _, readOnly := range []bool{true, false} {
		c, err := store.Open(store.Options{Dir: copied, ReadOnly: readOnly})
		if err != nil {
			t.Fatalf("round %d: open the copy: %v", round, err)
		}
		if n, again := store.AllRows(t, c); readOnly && (n != rows || again != sum) {
			t.Errorf("round %d: the copy has %d rows, the store had %d; or other ones", round, n, rows)
		}
		if d := cmp.Diff(counts, c.Counts()); d != "" || c.Head() != head {
			t.Errorf("round %d: head %d of the copy, %d of the store; counts:\n%s", round, c.Head(), head, d)
		}
		if !readOnly {
			storetest.Check(t, c)
		}
		if err := c.Close(); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
	}
	if d := cmp.Diff(files, filesOf(t, o.Dir)); d != "" || changes.Load() != before {
		t.Errorf("round %d: %d changes while frozen (-before +after):\n%s", round, changes.Load()-before, d)
	}
	s.Thaw()
	if err := os.RemoveAll(copied); err != nil {
		t.Error(err)
	}
}

// filesOf returns size and time of each file and directory below dir.
func filesOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		i, err := e.Info()
		if err == nil {
			files[name] = fmt.Sprint(i.Size(), i.ModTime().UnixNano())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestFrozenReads has every kind of write wait at a frozen store, and then reads: no read may wait
// for a lock that a waiting write holds.
func TestFrozenReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		metrics := prometheus.NewRegistry()
		s := storetest.Open(t, store.Options{Retention: time.Millisecond, SmallBytes: 1, GroupAge: time.Minute, PruneEvery: time.Second, Registerer: metrics})
		world, rng := newWorld(), rand.New(rand.NewPCG(1, 1))
		dids := importMany(t, s, 3)
		known, err := s.HostID("known.example")
		if err != nil {
			t.Fatal(err)
		}
		_ = world
		ctx, stop := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			if err := s.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		if err := s.Freeze(ctx); err != nil {
			t.Fatal(err)
		}
		rows, sum := store.AllRows(t, s)
		var done atomic.Int64
		writes := []func() error{
			func() error { _, err := s.HostID("new.example"); return err },
			func() error { _, err := s.SetHost("set.example", func(*store.HostRow) {}); return err },
			func() error {
				return s.NoteHosts([]uint32{known}, func(_ uint32, r *store.HostRow) { r.Bytes++ })
			},
			func() error { return store.Prune(ctx, s, s.Head()) },
			func() error {
				edit(t, s, dids[0], func(_ *store.Batch, r *store.Repo) error { r.Attempt++; return nil })
				return nil
			},
			func() error {
				im := storetest.Random(rng, 30).Import(store.Repo{DID: storetest.DID(1 << 20)}, storetest.Rev(1))
				im.Done = func(store.Repo, error) {}
				return s.Import(ctx, im)
			},
		}
		for _, write := range writes {
			all.Go(func() {
				if err := write(); err != nil {
					t.Error(err)
				}
				done.Add(1)
			})
		}
		synctest.Wait()
		time.Sleep(time.Minute) // Run prunes and collects
		synctest.Wait()
		if n := done.Load(); n > 0 {
			t.Errorf("%d of %d writes ended at a frozen store", n, len(writes))
		}
		frozenReads(t, s, metrics, dids)
		if n, again := store.AllRows(t, s); n != rows || again != sum {
			t.Errorf("rows changed at a frozen store: %d, then %d", rows, n)
		}
		s.Thaw()
		synctest.Wait()
		if err := s.FlushImports(); err != nil {
			t.Error(err)
		}
		if n := done.Load(); n != int64(len(writes)) {
			t.Errorf("%d of %d writes ended after the thaw", n, len(writes))
		}
		stop()
		all.Wait()
	})
}

// frozenReads reads everything that the API reads.
func frozenReads(t *testing.T, s *store.Store, metrics *prometheus.Registry, dids []string) {
	t.Helper()
	_, err := metrics.Gather()
	_, err2 := s.Sizes()
	_, _, err3 := s.Hosts("", 10, nil)
	_, err4 := s.ReposByOrdinal(0, 50)
	_, err5 := s.ReadLog(t.Context(), 0, 100, func(*store.Event) error { return nil })
	_, err6 := s.Repo(dids[0])
	if err := errors.Join(err, err2, err3, err4, err5, err6, s.Ready()); err != nil && !errors.Is(err, store.ErrOutdatedCursor) {
		t.Error(err)
	}
	if s.OrdinalsEnd() == 0 || s.Counts() == nil || s.QueuedHosts() == nil && s.Epoch() == "" {
		t.Error("a read returned nothing")
	}
	storetest.Check(t, s)
}

func TestDoor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var d store.Door
		var entered atomic.Int64
		enter := func(stop chan struct{}) {
			go func() { d.Enter(stop); entered.Add(1) }()
			synctest.Wait()
		}
		want := func(what string, n int64) {
			t.Helper()
			if synctest.Wait(); entered.Load() != n {
				t.Errorf("%s: %d entered, want %d", what, entered.Load(), n)
			}
		}
		enter(nil)
		enter(nil)
		want("open", 2)
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error, 1)
		go func() { result <- d.Shut(ctx) }()
		synctest.Wait()
		enter(nil)
		want("shutting", 2)
		cancel()
		if err := <-result; !errors.Is(err, context.Canceled) {
			t.Errorf("shut with an ended context: %v", err)
		}
		want("open again", 3)
		go func() { result <- d.Shut(t.Context()) }()
		d.Leave()
		d.Leave()
		synctest.Wait()
		if len(result) > 0 {
			t.Error("shut while a caller is inside")
		}
		d.Leave()
		if err := <-result; err != nil {
			t.Error(err)
		}
		stop := make(chan struct{})
		enter(stop)
		enter(nil)
		want("shut", 3)
		close(stop)
		want("stopped", 4)
		if d.TryEnter() {
			t.Error("entered a shut door")
		}
		d.Open()
		want("opened", 5)
		if !d.TryEnter() {
			t.Error("an open door kept a caller out")
		}
	})
}
