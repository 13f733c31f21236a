package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// fault makes one write operation fail, or that one and all after it, as on a full disk.
type fault struct {
	at      int64 // first operation that fails, from 1
	forever bool
	applied bool   // the operation is done, and returns an error all the same
	only    string // part of the path of operations that count; "" for any
	not     string // part of the path of operations that do not count; "" for none

	on  atomic.Bool
	n   atomic.Int64
	hit atomic.Value // string: what failed first
}

func (f *fault) String() string { return "fault" }

// MaybeError implements errorfs.Injector, whose errors come instead of the operation.
func (f *fault) MaybeError(op errorfs.Op) error {
	if f.applied {
		return nil
	}
	switch op.Kind {
	case errorfs.OpCreate, errorfs.OpReuseForWrite, errorfs.OpLink, errorfs.OpRename, errorfs.OpFileWrite,
		errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo, errorfs.OpFilePreallocate:
		return f.strike(op.Path, fmt.Sprint("operation ", int(op.Kind)))
	}
	return nil
}

func (f *fault) strike(path, what string) error {
	if !f.on.Load() || !strings.Contains(path, f.only) || f.not != "" && strings.Contains(path, f.not) {
		return nil
	}
	n := f.n.Add(1)
	if n != f.at && !(f.forever && n > f.at) {
		return nil
	}
	f.hit.CompareAndSwap(nil, what+" of "+path)
	return fmt.Errorf("injected: %w", syscall.ENOSPC)
}

// faultFS returns the errors of a fault that come after the operation was done.
type faultFS struct {
	vfs.FS
	f *fault
}

func faulty(fs vfs.FS, f *fault) vfs.FS { return faultFS{errorfs.Wrap(fs, f), f} }

func (fs faultFS) after(path, what string, err error) error {
	if err != nil || !fs.f.applied {
		return err
	}
	return fs.f.strike(path, what)
}

func (fs faultFS) file(name string, file vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return faultFile{file, fs, name}, nil
}

func (fs faultFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, c)
	return fs.file(name, f, err)
}

func (fs faultFS) OpenDir(name string) (vfs.File, error) {
	f, err := fs.FS.OpenDir(name)
	return fs.file(name, f, err)
}

func (fs faultFS) Link(from, to string) error {
	return fs.after(from, "link", fs.FS.Link(from, to))
}

func (fs faultFS) Rename(from, to string) error {
	return fs.after(from, "rename", fs.FS.Rename(from, to))
}

type faultFile struct {
	vfs.File
	fs   faultFS
	name string
}

func (f faultFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, f.fs.after(f.name, "write", err)
}

func (f faultFile) Sync() error     { return f.fs.after(f.name, "sync", f.File.Sync()) }
func (f faultFile) SyncData() error { return f.fs.after(f.name, "sync of data", f.File.SyncData()) }

// stopper turns a fatal failure of a test into an error of attempt.
type stopper struct{ testing.TB }

type stopped struct{ error }

func (s stopper) Helper()           {}
func (s stopper) Fatal(args ...any) { panic(stopped{errors.New(fmt.Sprint(args...))}) }

// attempt runs fn, which stops at its first error. It fails the test when fn hangs.
func attempt(t *testing.T, what string, fn func(t testing.TB)) error {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		defer func() {
			p := recover()
			err, ok := p.(stopped)
			if p != nil && !ok {
				err.error = fmt.Errorf("panic: %v", p)
				t.Errorf("%s: %v", what, err)
			}
			done <- err.error
		}()
		fn(stopper{t})
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(20 * time.Second):
		t.Fatalf("%s: hangs", what)
		return nil
	}
}

// TestFaults makes the operations of a history of imports, commits and wipes fail, one in each run.
// The run must end with an error, or the fault must not have mattered; afterwards nothing may be
// written any more. What the disk then has, without unsynced data, is opened without the fault: it
// checks clean, has every published event under its id, and ends like the run without a fault.
func TestFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	for _, small := range []int64{1 << 20, 1} {
		for _, kind := range []string{"not applied", "applied", "disk full"} {
			t.Run(fmt.Sprintf("small=%d/%s", small, kind), func(t *testing.T) {
				t.Parallel()
				rng := seeded(t)
				hs := histories(rng, 4)
				o := store.Options{Dir: "db", SmallBytes: small, GroupBytes: 3 << 10, TableBytes: 2 << 10, GroupAge: time.Hour}
				o.FS = vfs.NewMem()
				plain := storetest.Open(t, o)
				play(t, plain, hs)
				want := held(t, plain)
				all := &fault{applied: kind == "applied"}
				runFault(t, o, all, rng, hs, want)
				for range 12 {
					f := &fault{at: 1 + rng.Int64N(all.n.Load()), applied: kind == "applied", forever: kind == "disk full"}
					runFault(t, o, f, rng, hs, want)
				}
			})
		}
	}
}

func runFault(t *testing.T, o store.Options, f *fault, rng *rand.Rand, hs []history, want map[string]storetest.Records) {
	t.Helper()
	fs := vfs.NewCrashableMem()
	o.FS = faulty(fs, f)
	s, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	f.on.Store(true)
	err = attempt(t, "play", func(t testing.TB) { play(t, s, hs) })
	hit, _ := f.hit.Load().(string)
	var published map[uint64]string
	var position uint64
	if err := attempt(t, "read", func(t testing.TB) { published, position = toldUpTo(t, s) }); err != nil {
		t.Errorf("%s: the log cannot be read: %v", hit, err)
	}
	select {
	case <-store.Failed(s):
		if err == nil {
			t.Errorf("%s: the store failed and no caller got the error", hit)
		}
		useless(t, s, hit)
	default:
		if err != nil {
			t.Errorf("%s: %v, and the store goes on", hit, err)
		}
	}
	clone := fs.CrashClone(vfs.CrashCloneCfg{RNG: rng})
	if err == nil { // the fault did not matter: everything is there, and durable
		reopened, err := store.Open(store.Options{FS: clone, Dir: o.Dir})
		if err != nil {
			t.Fatal(err)
		}
		if got, now := len(held(t, reopened)), len(want); got != now {
			t.Errorf("%s: was no error, and %d of %d repositories are there", hit, got, now)
		}
		if err := reopened.Close(); err != nil {
			t.Error(err)
		}
	}
	recovered(t, o, clone, hs, published, position, want)
	if err := attempt(t, "close after "+hit, func(testing.TB) { s.Close() }); err != nil { //nolint:errcheck // it may say anything, and must return
		t.Error(err)
	}
	if t.Failed() {
		t.Logf("fault at %d of %+v: %s: %v", f.at, o, hit, err)
	}
}

// useless checks that a failed store refuses every write, with the failure, and at once.
func useless(t *testing.T, s *store.Store, hit string) {
	t.Helper()
	for name, fn := range map[string]func() error{
		"commit": func() error {
			b := s.NewBatch()
			b.PutReconciliation("a", store.Reconciliation{})
			return b.CommitSync()
		},
		"import": func() error {
			var told error
			im := storetest.Records{}.Import(store.Repo{DID: storetest.DID(1 << 30)}, storetest.Rev(1))
			im.Done = func(_ store.Repo, err error) { told = err }
			err := s.Import(context.Background(), im)
			if err == nil || told == nil {
				return nil
			}
			return err
		},
		"host":  func() error { _, err := s.HostID("new.test"); return err },
		"run":   func() error { return s.Run(context.Background()) },
		"ready": s.Ready,
	} {
		var err error
		if stop := attempt(t, name+" after "+hit, func(testing.TB) { err = fn() }); stop != nil {
			t.Error(stop)
		}
		if err == nil || !strings.Contains(err.Error(), "store failed") {
			t.Errorf("%s after %s: %v", name, hit, err)
		}
	}
}

// TestImportFault: every import of a group that failed is told so, once, and Run ends.
func TestImportFault(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name  string
		small int64
		f     *fault
	}{
		{"table not made", 1, &fault{at: 2, only: "import/"}},
		{"no link and no copy", 1, &fault{at: 9, only: ".sst", forever: true}},
		{"manifest not synced", 1, &fault{at: 1, only: "MANIFEST"}}, // Pebble panics
		{"log not written", 1 << 20, &fault{at: 3, only: ".log", forever: true}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s, err := store.Open(store.Options{FS: faulty(vfs.NewMem(), row.f), Dir: "db", SmallBytes: row.small, GroupAge: 50 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			var mu sync.Mutex
			outcomes := map[string][]error{}
			rng := rand.New(rand.NewPCG(1, 2))
			var ims []store.Import
			for i := range 3 {
				did := storetest.DID(i + 1)
				im := storetest.Random(rng, 30).Import(add(t, s, did), storetest.Rev(1))
				im.Done = func(_ store.Repo, err error) {
					mu.Lock()
					defer mu.Unlock()
					outcomes[did] = append(outcomes[did], err)
				}
				ims = append(ims, im)
			}
			row.f.on.Store(true)
			ran := make(chan error, 1)
			go func() { ran <- s.Run(context.Background()) }()
			for _, im := range ims {
				s.Import(t.Context(), im) //nolint:errcheck // Done is told too
			}
			select {
			case err := <-ran:
				if err == nil || !strings.Contains(err.Error(), "injected") {
					t.Errorf("run ended with %v", err)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("run goes on")
			}
			mu.Lock()
			defer mu.Unlock()
			for _, im := range ims {
				if o := outcomes[im.DID]; len(o) != 1 || o[0] == nil {
					t.Errorf("%s was told %v", im.DID, o)
				}
			}
			t.Log(row.f.hit.Load(), outcomes[ims[0].DID])
		})
	}
}

// TestEmptyBatchPublishesNothing: events of a batch that is not durable yet stay unpublished when
// an empty batch commits.
func TestEmptyBatchPublishesNothing(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	var closed atomic.Bool
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if closed.Load() && op.Kind == errorfs.OpFileSyncData {
			<-gate
		}
		return nil
	}))
	s := storetest.Open(t, store.Options{FS: fs})
	r := add(t, s, storetest.DID(1))
	closed.Store(true)
	b := s.NewBatch()
	b.Account(&r)
	wait, err := b.Commit()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.NewBatch().CommitSync(); err != nil {
		t.Fatal(err)
	}
	if s.Head() != 0 {
		t.Errorf("head is %d before the sync", s.Head())
	}
	close(gate)
	if err := wait(); err != nil || s.Head() != 1 {
		t.Errorf("head is %d after the sync, %v", s.Head(), err)
	}
}

const (
	faultDir = "CISTERN_TEST_FAULT_DIR"
	faultAt  = "CISTERN_TEST_FAULT_AT"
)

// TestFaultInFlush makes operations fail that Pebble does in goroutines of its own: rotating the
// log, flushes, compactions, the manifest. Pebble panics there, or the runtime ends the process, so
// that each run is a process. It must not hang, and published events must be kept.
func TestFaultInFlush(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts processes")
	}
	rng := seeded(t)
	total := int64(0)
	for i := range 6 {
		dir := t.TempDir()
		at := int64(1 << 40) // counts the operations
		if i > 0 {
			at = 1 + rng.Int64N(total)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestFaultChild$", "-test.v")
		// SIGQUIT prints where the process hangs
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGQUIT) }
		cmd.Env = append(os.Environ(), faultDir+"="+dir, fmt.Sprint(faultAt, "=", at))
		out, err := cmd.CombinedOutput()
		if ctx.Err() != nil {
			t.Fatalf("fault at %d: the process hangs: %s", at, out)
		}
		cancel()
		var head uint64
		hit, ended := "", "went on"
		for line := range strings.Lines(string(out)) {
			fmt.Sscanf(line, "head %d", &head) //nolint:errcheck // other lines
			if i == 0 {
				fmt.Sscanf(line, "operations %d", &total) //nolint:errcheck
			}
			for _, prefix := range []string{"hit ", "panic: ", "fatal error: ", "failed: "} {
				if rest, ok := strings.CutPrefix(line, prefix); ok && prefix == "hit " {
					hit = strings.TrimSpace(rest)
				} else if ok && ended == "went on" {
					ended = strings.TrimSpace(line)
				}
			}
		}
		t.Logf("fault at %d of %d, %s: head %d, %s (%v)", at, total, hit, head, ended, err)
		s := storetest.Open(t, store.Options{FS: vfs.Default, Dir: dir})
		if s.Head() < head {
			t.Errorf("fault at %d: head is %d, %d was published", at, s.Head(), head)
		}
		if n := len(told(t, s)); n != int(s.Head()) {
			t.Errorf("fault at %d: %d of %d events", at, n, s.Head())
		}
	}
}

// TestFaultChild is the process of TestFaultInFlush.
func TestFaultChild(t *testing.T) {
	dir := os.Getenv(faultDir)
	if dir == "" {
		t.Skip("started by TestFaultInFlush")
	}
	f := &fault{not: "/import/", forever: true}
	fmt.Sscan(os.Getenv(faultAt), &f.at) //nolint:errcheck // 0 is none
	s, err := store.Open(store.Options{FS: faulty(vfs.Default, f), Dir: dir, MemTableBytes: 64 << 10, GroupBytes: 30 << 10})
	if err != nil {
		t.Fatal(err)
	}
	f.on.Store(true)
	go func() { // as the daemon: when the store fails, the process ends, whatever else waits
		if err := s.Run(context.Background()); err != nil {
			fmt.Println("hit", f.hit.Load())
			fmt.Println("failed:", err)
			os.Exit(3)
		}
	}()
	err = attempt(t, "grow", func(t testing.TB) {
		w := newWorld()
		rng := rand.New(rand.NewPCG(3, 4))
		for i := range 30 {
			did := storetest.DID(i + 1)
			w.importRepo(t, s, did, storetest.Random(rng, 60))
			if err := s.FlushImports(); err != nil {
				t.Fatal(err)
			}
			unlock := s.Lock(did)
			r, err := s.Repo(did)
			if err != nil {
				t.Fatal(err)
			}
			b := s.NewBatch()
			body := storetest.Text(strings.Repeat(fmt.Sprint(i), 5000))
			if err := b.Apply(&r, true, w.rev(), []store.Op{{Path: []byte("app.test.a/1"), CID: repo.HashCID(body), Record: body}}); err != nil {
				t.Fatal(err)
			}
			b.ForgeRepo(&r)
			err = b.CommitSync()
			unlock()
			if err != nil {
				t.Fatal(err)
			}
			fmt.Println("head", s.Head())
			if hit := f.hit.Load(); hit != nil {
				fmt.Println("hit", hit)
			}
		}
	})
	if hit := f.hit.Load(); hit != nil {
		fmt.Println("hit", hit)
	}
	fmt.Println("operations", f.n.Load())
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(3)
	}
	f.on.Store(false)
	if err := s.Close(); err != nil {
		t.Log(err)
	}
}
