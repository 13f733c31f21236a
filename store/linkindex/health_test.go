package linkindex_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cistern/store/linkindex"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// disk is a file system in memory that can be full for some files.
type disk struct {
	vfs.FS
	memory *storetest.CrashFS
	full   atomic.Bool
	files  func(path string) bool // that it is full for
}

func newDisk(files func(path string) bool) *disk {
	d := &disk{memory: storetest.NewCrashFS(), files: files}
	d.FS = errorfs.Wrap(d.memory, errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpCreate, errorfs.OpReuseForWrite, errorfs.OpFileWrite, errorfs.OpFileSync, errorfs.OpFileSyncData:
			if d.full.Load() && d.files(op.Path) {
				return syscall.ENOSPC
			}
		}
		return nil
	}))
	return d
}

func ofRuns(path string) bool { return strings.Contains(path, "/run/") }

func ofEngine(path string) bool { return strings.HasSuffix(path, ".sst") && !ofRuns(path) }

func manifest(path string) bool { return strings.Contains(path, "MANIFEST") }

// TestDiskFull: while the disk is full the index says so and answers with what it has; when it is not
// any more, the index goes on.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		why   string
		files func(path string) bool
		small int // rows up to which a run is a batch
	}{
		{"tables of runs", ofRuns, 1},
		{"tables of flushes", ofEngine, 1 << 20},
	} {
		t.Run(tt.why, func(t *testing.T) {
			t.Parallel()
			diskFull(t, newDisk(tt.files), tt.small)
		})
	}
}

func diskFull(t *testing.T, d *disk, small int) {
	h, a := newHistory(t)
	x, err := linkindex.OpenResting(linkindex.Options{Store: h.store, Dir: "links", FS: d}, small)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- x.Run(ctx) }()
	more := func() {
		t.Helper()
		for range 40 {
			a.Step()
		}
		storetest.Head(t, h.store)
	}
	full := func(full bool) {
		t.Helper()
		d.full.Store(full)
		more()
		if _, err := x.DB().AsyncFlush(); err != nil {
			t.Error(err)
		}
		if full {
			await(t, func() bool { return errors.Is(x.State().Err, syscall.ENOSPC) })
			return
		}
		await(t, func() bool {
			if err := x.Failure(); err != nil {
				t.Fatal(err)
			}
			st := x.State()
			return st.Err == nil && !st.Building && st.Through == h.store.Head()
		})
		compare(t, h.rng, h.store, x)
	}
	full(false)
	for range 2 {
		full(true)
		more() // is not written
		if _, err := x.Sources(target(0)); err != nil {
			t.Error(err)
		}
		full(false)
	}
	full(true)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := x.Close(); err != nil {
		t.Error(err)
	}
	restarted(t, h, d.memory.Clone(h.rng, h.rng.IntN(101)))
}

// restarted opens the index that a full disk has left. It must be whole, and go on. The stopped
// index cannot be checked: the engine may have finished a write that was under way at the stop, of
// which the index does not know.
func restarted(t *testing.T, h *history, fs *storetest.CrashFS) {
	t.Helper()
	x := h.openIndex(linkindex.Options{FS: fs})
	if n, _, err := x.Check(t.Context(), func(d string) { t.Error(d) }); n > 0 || err != nil {
		t.Errorf("after a restart: %d differences, %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- x.Run(ctx) }()
	await(t, func() bool { st := x.State(); return !st.Building && st.Through == h.store.Head() })
	compare(t, h.rng, h.store, x)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestStopAfterDiskFull: a rest that has passed does not have the engine left behind at a later stop.
func TestStopAfterDiskFull(t *testing.T) {
	t.Parallel()
	got, abandoned := linkindex.GuardRecovered(syscall.ENOSPC, func() error {
		time.Sleep(50 * time.Millisecond) // as a write that syncs, long after the stop
		return nil
	})
	if got != nil || abandoned {
		t.Errorf("the last write of a healthy engine: %v, abandoned %v", got, abandoned)
	}
}

// TestLost: when the engine loses its manifest in a goroutine of its own, the index is not built any
// more and says so; the process goes on, queries are answered, and Run and Close return.
func TestLost(t *testing.T) {
	t.Parallel()
	h, a := newHistory(t)
	h.small = 1 << 20
	d := newDisk(manifest)
	for range 60 {
		a.Step()
	}
	x := h.openIndex(linkindex.Options{FS: d})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- x.Run(ctx) }()
	await(t, func() bool { st := x.State(); return !st.Building && st.Through == h.store.Head() })
	compare(t, h.rng, h.store, x)
	d.full.Store(true)
	if _, err := x.DB().AsyncFlush(); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return x.State().Err != nil })
	for range 20 {
		a.Step()
	}
	if _, err := x.Sources(target(0)); err != nil {
		t.Error(err)
	}
	cancel()
	if err := errors.Join(<-ended, x.Close()); err != nil {
		t.Error(err)
	}
}

// await waits until something is so, as long as the test may take.
func await(t *testing.T, so func() bool) {
	t.Helper()
	for !so() {
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(time.Millisecond):
		}
	}
}
