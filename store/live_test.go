package store_test

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestLive plays histories of commits, account events and fetches while commits come.
func TestLive(t *testing.T) {
	t.Parallel()
	rng := seeded(t)
	for range 8 {
		s := storetest.Open(t, store.Options{})
		r := &liveRun{t: t, s: s, script: newLiveScript(rng, 6, 150), at: newMarks(0), fetched: map[string]copying{}}
		r.play(0, -1)
		storetest.Check(t, s)
		if got := r.covered(); got != 150 {
			t.Errorf("the cursor is %d", got)
		}
		r.finish()
		r.equal()
	}
}

// TestLiveCrash clones the file system at every step of a history, with none, some or all of what
// was not synced, opens the clone, and continues from its cursor: nothing is missing below the
// cursor, and the end is that of a run that never crashed.
func TestLiveCrash(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	storetest.WithoutRace(t)
	t.Parallel()
	rng := seeded(t)
	script := newLiveScript(rng, 5, 70)
	fs := vfs.NewCrashableMem()
	o := store.Options{FS: fs, Dir: "db"}
	busy, steps := true, 0
	o.Step = func(string) {
		if busy {
			return
		}
		busy = true
		defer func() { busy = false }()
		steps++
		clone := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 50, 100}[rng.IntN(3)], RNG: rng})
		s, err := store.Open(store.Options{FS: clone, Dir: "db"})
		if err != nil {
			t.Fatal(err)
		}
		storetest.Check(t, s)
		r := &liveRun{t: t, s: s, script: script, fetched: map[string]copying{}}
		cursor := r.covered()
		r.at = newMarks(cursor)
		r.play(cursor, -1)
		r.finish()
		storetest.Check(t, s)
		r.equal()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	s := storetest.Open(t, o)
	busy = false
	r := &liveRun{t: t, s: s, script: script, at: newMarks(0), fetched: map[string]copying{}}
	r.play(0, -1)
	r.finish()
	busy = true
	r.equal()
	if steps < 140 {
		t.Errorf("crashed at %d steps only", steps)
	}
}

// TestLiveRace has goroutines commit events of their own DIDs, with one watermark for all, and
// crashes meanwhile: no cursor on disk covers an event that is lost.
func TestLiveRace(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	rng := seeded(t)
	const writers = 4
	script := newLiveScript(rng, 12, 600)
	fs := vfs.NewCrashableMem()
	var mu sync.Mutex // guards what follows
	var clones []*vfs.MemFS
	armed, n := false, 0
	s := storetest.Open(t, store.Options{FS: fs, Step: func(string) {
		mu.Lock()
		defer mu.Unlock()
		if n++; armed && n%20 == 0 {
			clones = append(clones, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 30, 70, 100}[rng.IntN(4)], RNG: rng}))
		}
	}})
	mu.Lock()
	armed = true
	mu.Unlock()
	at := newMarks(0)
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			r := &liveRun{t: t, s: s, script: script, at: at, fetched: map[string]copying{}}
			last := int64(0)
			for _, h := range script.steps {
				if h.seq > 0 {
					last = h.seq
				}
				if h.did[len(h.did)-1]%writers != byte(w) {
					continue
				}
				switch h.kind {
				case "begin":
					r.begin(h.did, last)
				case "end":
					r.end(h.did)
				case "commit", "account":
					r.event(h)
				}
			}
		})
	}
	all.Wait()
	(&liveRun{t: t, s: s, script: script}).covered()
	moved := false
	for _, clone := range clones {
		s, err := store.Open(store.Options{FS: clone, Dir: "db"})
		if err != nil {
			t.Fatal(err)
		}
		storetest.Check(t, s)
		cursor := (&liveRun{t: t, s: s, script: script}).covered()
		moved = moved || cursor > 0 && cursor < 600
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if !moved || len(clones) < 20 {
		t.Errorf("%d clones, with a cursor in the middle: %v", len(clones), moved)
	}
}

// TestLiveFaults makes one operation of the file system fail, another one in each run. Afterwards
// nothing is written any more, and a run can continue from what the disk has.
func TestLiveFaults(t *testing.T) {
	t.Parallel()
	rng := seeded(t)
	script := newLiveScript(rng, 5, 60)
	all := &fault{}
	runLiveFault(t, script, all, rng)
	for i := range 15 {
		runLiveFault(t, script, &fault{at: 1 + rng.Int64N(all.n.Load()), applied: i%2 == 0, forever: i%3 == 0}, rng)
	}
}

func runLiveFault(t *testing.T, script *liveScript, f *fault, rng *rand.Rand) {
	t.Helper()
	fs := vfs.NewCrashableMem()
	s, err := store.Open(store.Options{FS: faulty(fs, f), Dir: "db"})
	if err != nil {
		t.Fatal(err)
	}
	f.on.Store(true)
	err = attempt(t, "play", func(t testing.TB) {
		(&liveRun{t: t, s: s, script: script, at: newMarks(0), fetched: map[string]copying{}}).play(0, -1)
	})
	hit, _ := f.hit.Load().(string)
	if hit == "" && err != nil {
		t.Errorf("without a fault: %v", err)
	}
	select {
	case <-store.Failed(s):
		useless(t, s, hit)
		if err == nil {
			t.Errorf("%s: the store failed and no caller got the error", hit)
		}
	default:
		if err != nil {
			t.Errorf("%s: %v, and the store goes on", hit, err)
		}
	}
	clone := fs.CrashClone(vfs.CrashCloneCfg{RNG: rng})
	again := storetest.Open(t, store.Options{FS: clone})
	storetest.Check(t, again)
	r := &liveRun{t: t, s: again, script: script, fetched: map[string]copying{}}
	cursor := r.covered()
	if err == nil && cursor != 60 {
		t.Errorf("%s: was no error, and the cursor is %d", hit, cursor)
	}
	r.at = newMarks(cursor)
	r.play(cursor, -1)
	r.finish()
	r.equal()
	if err := attempt(t, "close after "+hit, func(testing.TB) { s.Close() }); err != nil { //nolint:errcheck // it may say anything, and must return
		t.Error(err)
	}
}

// TestFailedBatch: a batch that failed has changed nothing in memory either, and nothing is written
// after it (invariant 13).
func TestFailedBatch(t *testing.T) {
	t.Parallel()
	s, err := store.Open(store.Options{FS: vfs.NewMem(), Dir: "db", GroupAge: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	did := storetest.DID(1)
	imported(t, s, did, small())
	r := edit(t, s, did, func(b *store.Batch, r *store.Repo) error { r.State = store.StatePending; return nil })
	b := s.NewBatch()
	b.Buffer(&r, storetest.Rev(9), []byte("nine"))
	r.SeenRev, r.Records = storetest.Rev(9), -10 // fewer than there are
	b.ForgeRepo(&r)
	if err := b.CommitSync(); err == nil {
		t.Fatal("committed")
	}
	if r, err := s.Repo(did); err != nil || r.SeenRev != "" || s.Buffered(did) != 0 {
		t.Errorf("seen %q, %d buffered, %v", r.SeenRev, s.Buffered(did), err)
	}
	next := s.NewBatch()
	next.SetCursor("ws://a.test", func() int64 { return 1 })
	if err := next.CommitSync(); err == nil {
		t.Error("a batch is written after one that failed")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestWipeTorn: a wipe removes all that an interrupted difference left.
func TestWipeTorn(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{}) // Open checks the store at the end
	did := storetest.DID(1)
	imported(t, s, did, small())
	edit(t, s, did, func(_ *store.Batch, r *store.Repo) error { r.State, r.Torn = store.StatePending, true; return nil })
	if r := edit(t, s, did, func(b *store.Batch, r *store.Repo) error { return b.Wipe(r) }); r.Torn {
		t.Error("torn")
	}
}

// TestRowKept: a row that was read does not change with the buffer that its commit was in when it
// was written.
func TestRowKept(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	did := storetest.DID(1)
	imported(t, s, did, small())
	var buffer []byte
	r := edit(t, s, did, func(_ *store.Batch, r *store.Repo) error {
		buffer = bytes.Clone(r.Commit)
		r.Commit = buffer
		return nil
	})
	want := bytes.Clone(r.Commit)
	clear(buffer)
	if r, err := s.Repo(did); err != nil || !bytes.Equal(r.Commit, want) {
		t.Errorf("commit %x, %v", r.Commit, err)
	}
}
