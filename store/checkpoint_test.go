package store_test

import (
	"errors"
	"math/rand/v2"
	"path"
	"strings"
	"sync"
	"testing"

	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestCheckpointUnderLoad makes checkpoints while repositories are imported and changed. Each opens
// clean, and has what was durable when it was asked for.
func TestCheckpointUnderLoad(t *testing.T) {
	t.Parallel()
	rng := seeded(t)
	s := storetest.Open(t, store.Options{Dir: path.Join(t.TempDir(), "db"), FS: vfs.Default,
		MemTableBytes: 64 << 10, GroupBytes: 1 << 20, SmallBytes: 16 << 10})
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for i := range 3 {
		rng := rand.New(rand.NewPCG(rng.Uint64(), 1))
		writers.Go(func() {
			w := newWorld()
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				did := storetest.DID(1 + i + 3*(n/20))
				if n%20 == 0 {
					w.importRepo(t, s, did, storetest.Random(rng, 50+rng.IntN(400)))
					if err := s.FlushImports(); err != nil {
						t.Error(err)
					}
					continue
				}
				w.change(t, s, rng, did, true)
			}
		})
	}
	for range storetest.Seeds(12) {
		before := s.Head()
		c, err := s.Checkpoint(t.Context())
		if err != nil {
			t.Error(err)
			break
		}
		checkCopy(t, s, c, before)
		if err := errors.Join(c.Close(), c.Close()); err != nil {
			t.Error(err)
		}
		if _, err := vfs.Default.Stat(c.Dir); err == nil {
			t.Errorf("%s is left after Close", c.Dir)
		}
	}
	close(stop)
	writers.Wait()
}

// checkCopy opens a checkpoint and checks it.
func checkCopy(t *testing.T, s *store.Store, c *store.Checkpoint, before uint64) {
	t.Helper()
	copied, err := store.Open(store.Options{Dir: c.Dir})
	if err != nil {
		t.Error(err)
		return
	}
	storetest.Check(t, copied)
	if c.Head < before || copied.Head() != c.Head || c.Epoch != s.Epoch() || copied.Epoch() != c.Epoch ||
		c.Format != store.FormatVersion {
		t.Errorf("checkpoint of head %d, epoch %s, format %d after head %d; its store has %d and %s",
			c.Head, c.Epoch, c.Format, before, copied.Head(), copied.Epoch())
	}
	if err := copied.Close(); err != nil {
		t.Error(err)
	}
}

// TestCheckpointLeft opens a store whose process ended with checkpoints.
func TestCheckpointLeft(t *testing.T) {
	t.Parallel()
	fs := storetest.NewCrashFS()
	s := storetest.Open(t, store.Options{FS: fs})
	var all []*store.Checkpoint
	for {
		c, err := s.Checkpoint(t.Context())
		if errors.Is(err, store.ErrCheckpoints) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fs.Stat(path.Join(c.Dir, "LOCK")); err == nil {
			t.Error("the lock of the engine is part of the checkpoint")
		}
		all = append(all, c)
	}
	if len(all) != 4 {
		t.Errorf("%d checkpoints at a time, want 4", len(all))
	}
	crashed := fs.Clone(rand.New(rand.NewPCG(1, 1)), 100)
	if err := all[0].Close(); err != nil {
		t.Error(err)
	}
	if c, err := s.Checkpoint(t.Context()); err != nil {
		t.Errorf("after one was closed: %v", err)
	} else {
		all[0] = c
	}
	for _, c := range all {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := crashed.Stat("db/checkpoints"); err != nil {
		t.Fatalf("the crash left no checkpoint: %v", err)
	}
	storetest.Open(t, store.Options{FS: crashed})
	if _, err := crashed.Stat("db/checkpoints"); err == nil {
		t.Error("checkpoints are left after Open")
	}
}

// crashOnRemove clones its file system before and after a file is removed.
type crashOnRemove struct {
	*storetest.CrashFS
	name   string
	clones []*storetest.CrashFS
}

func (f *crashOnRemove) Remove(name string) error {
	if path.Base(name) != f.name {
		return f.CrashFS.Remove(name)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	f.clones = append(f.clones, f.Clone(rng, 0), f.Clone(rng, 100))
	return f.CrashFS.Remove(name)
}

// TestRestoredEpoch: a restored store gets a new epoch once, and a crash at any moment of the first
// Open leads to a new epoch too.
func TestRestoredEpoch(t *testing.T) {
	t.Parallel()
	fs := &crashOnRemove{CrashFS: storetest.NewCrashFS(), name: store.RestoredName}
	old := openedEpoch(t, fs, false)
	r := store.Restored{Source: "s3://bucket", Generation: "g", Complete: true}
	if err := r.WriteOn(fs, "db"); err != nil {
		t.Fatal(err)
	}
	if e := openedEpoch(t, fs, true); e == old {
		t.Error("a store that is opened for reading shows the epoch of the backup")
	}
	renewed := openedEpoch(t, fs, false)
	if renewed == old {
		t.Error("a restored store has the epoch of the backup")
	}
	if again := openedEpoch(t, fs, false); again != renewed {
		t.Errorf("epoch %s at the next Open, want %s", again, renewed)
	}
	for i, clone := range append(fs.clones, fs.Clone(rand.New(rand.NewPCG(1, 1)), 0)) {
		first := openedEpoch(t, clone, false)
		if first == old || openedEpoch(t, clone, false) != first {
			t.Errorf("crash %d: epoch %s of the first Open, the backup has %s", i, first, old)
		}
	}
}

// openedEpoch returns the epoch of a store.
func openedEpoch(t *testing.T, fs vfs.FS, readOnly bool) string {
	t.Helper()
	s, err := store.Open(store.Options{Dir: "db", FS: fs, ReadOnly: readOnly})
	if err != nil {
		t.Fatal(err)
	}
	storetest.Check(t, s)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	return s.Epoch()
}

// TestHalfRestored: a directory without all its files is not opened, and no store is begun there.
func TestHalfRestored(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	if err := fs.MkdirAll("db", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := (store.Restored{Source: "s3://bucket/a", Generation: "g1"}).WriteOn(fs, "db"); err != nil {
		t.Fatal(err)
	}
	for _, readOnly := range []bool{true, false} {
		_, err := store.Open(store.Options{Dir: "db", FS: fs, ReadOnly: readOnly})
		if !errors.Is(err, store.ErrHalfRestored) || !strings.Contains(err.Error(), "g1 of s3://bucket/a") {
			t.Errorf("read only %t: %v", readOnly, err)
		}
	}
	if names, err := fs.List("db"); err != nil || len(names) != 1 {
		t.Errorf("files %v, %v", names, err)
	}
}
