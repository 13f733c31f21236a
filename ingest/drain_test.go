package ingest_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// fetching makes a repository of which a copy is being made, taken before n more commits came.
func fetching(w *world, a *simnet.Account, n int) (complete func()) {
	w.t.Helper()
	set(w, a, func(r *store.Repo) { r.State, r.Tracked = store.StatePending, store.ByOperator })
	w.begin(a)
	w.put(a, "app.test.x/before", "the copy holds it")
	truth, records := a.Truth(), w.records(a)
	for i := range n {
		w.put(a, fmt.Sprintf("app.test.x/%d", i), "1")
	}
	return func() { w.complete(a, truth, records) }
}

func TestDrain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.skip()
	complete := fetching(w, a, 50)
	w.pass()
	if n := w.store.Buffered(a.DID()); n != 51 {
		t.Fatalf("%d commits buffered, want 51", n)
	}
	complete()
	if row := w.row(a); row.State != store.StateDraining {
		t.Fatalf("row is %s", row.State)
	}
	w.r.Drain(a.DID())
	w.until("the buffer is drained", func() bool { return w.row(a).State == store.StateSynced })
	w.equal(a)
	w.until("the log is durable", func() bool { lines, _ := w.log(a); return len(lines) >= 50 })
	if lines, _ := w.log(a); len(lines) != 50 {
		t.Errorf("%d live changes, want 50", len(lines))
	}
}

// TestDrainOfManyCommits: how many commits come during a fetch does not matter, as long as their
// bytes are within the limit.
func TestDrainOfManyCommits(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.skip()
	const n = 1500
	complete := fetching(w, a, n)
	w.pass()
	if got := w.store.Buffered(a.DID()); got != n+1 {
		t.Fatalf("%d commits buffered, want %d", got, n+1)
	}
	complete()
	w.r.Drain(a.DID())
	w.until("the buffer is drained", func() bool { return w.row(a).State == store.StateSynced })
	w.equal(a)
}

// Without a call of Drain, the next event finds the row, and comes after what is buffered.
func TestEventDrains(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.skip()
	complete := fetching(w, a, 10)
	w.pass()
	complete()
	w.put(a, "app.test.x/last", "1")
	w.pass()
	w.equal(a)
}

func TestRunDrains(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.skip()
	complete := fetching(w, a, 10)
	w.pass()
	w.stop()
	complete()
	w.start()
	w.until("the buffer is drained", func() bool { return w.row(a).State == store.StateSynced })
	w.equal(a)
}

func TestDrainOfBrokenChain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.skip()
	w.net.RelayHost().InjectStream(simnet.StreamFault{Kind: simnet.StreamGap, DID: a.DID(), After: 5, Count: 1})
	complete := fetching(w, a, 10)
	w.pass()
	complete()
	w.r.Drain(a.DID())
	w.until("the drain ends", func() bool { return w.row(a).State != store.StateDraining })
	row := w.row(a)
	if row.State != store.StatePending || row.SeenRev != a.Truth().Rev || w.store.Buffered(a.DID()) != 0 {
		t.Errorf("row is %s, seen %q, %d buffered", row.State, row.SeenRev, w.store.Buffered(a.DID()))
	}
}

func TestDrainOfForgery(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.skip()
	w.net.RelayHost().InjectStream(simnet.StreamFault{Kind: simnet.StreamForgedSignature, DID: a.DID(), After: 5, Count: 1})
	complete := fetching(w, a, 10)
	w.pass()
	complete()
	w.r.Drain(a.DID())
	w.until("the drain ends", func() bool { return w.row(a).State != store.StateDraining })
	if row := w.row(a); row.State != store.StatePending || !row.Recheck || w.store.Buffered(a.DID()) != 0 {
		t.Errorf("row is %s, recheck %t, %d buffered", row.State, row.Recheck, w.store.Buffered(a.DID()))
	}
}

// TestDrainOfFormerAttempt has another attempt complete between the look at the buffer and the
// lock. What the shard found in the former buffer must not be counted as taken from the new one.
func TestDrainOfFormerAttempt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.skip()
	complete := fetching(w, a, 2)
	w.pass()
	complete()
	type commit struct {
		rev     string
		message []byte
	}
	var later []commit // commits that the copy does not have
	held := w.row(a).Rev
	err := w.store.BufferedCommits(a.DID(), func(rev string, message []byte) error {
		if rev > held {
			later = append(later, commit{rev, bytes.Clone(message)})
		}
		return nil
	})
	if err != nil || len(later) != 2 || w.store.Buffered(a.DID()) != 3 {
		t.Fatalf("%d commits buffered, %d of them later than the copy (%v)", w.store.Buffered(a.DID()), len(later), err)
	}
	again := func() {
		wait, err := w.store.UpdateRepo(a.DID(), func(b *store.Batch, r *store.Repo) error {
			b.Enqueue(r, store.PriorityRetry)
			for _, c := range later {
				b.Buffer(r, c.rev, c.message)
			}
			b.Complete(r)
			b.PutRepo(r)
			return nil
		})
		if err == nil {
			err = wait()
		}
		if err != nil {
			t.Error(err)
		}
	}
	w.dir.mu.Lock()
	w.dir.meet = again
	w.dir.mu.Unlock()
	w.r.Drain(a.DID())
	w.until("the drain ends", func() bool { return w.row(a).State != store.StateDraining })
	if row := w.row(a); row.State != store.StateSynced {
		t.Fatalf("row is %s, at rev %s, seen %q", row.State, row.Rev, row.SeenRev)
	}
	w.equal(a)
}

// A rev that was seen before and is not in the copy nor in the buffer is asked for.
func TestDrainedButBehind(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.skip()
	complete := fetching(w, a, 3)
	w.pass()
	complete()
	seen := a.NextTID()
	set(w, a, func(r *store.Repo) { r.SeenRev = seen })
	w.r.Drain(a.DID())
	w.until("the drain ends", func() bool { return w.row(a).State != store.StateDraining })
	if row := w.row(a); row.State != store.StatePending || !row.Recheck || row.SeenRev != seen {
		t.Errorf("row is %s, recheck %t, seen %q", row.State, row.Recheck, row.SeenRev)
	}
}

// After a crash at any step of a drain, the next Run goes on where it ended.
func TestCrashWhileDraining(t *testing.T) {
	t.Parallel()
	var w *world
	fs := vfs.NewCrashableMem()
	clones := make(chan *vfs.MemFS, 4096)
	w = newWorldIn(t, store.Options{FS: fs, Step: func(string) {
		select {
		case clones <- fs.CrashClone(vfs.CrashCloneCfg{}):
		default:
		}
	}})
	a := w.net.Accounts()[0]
	w.skip()
	complete := fetching(w, a, 6)
	w.pass()
	complete()
	for len(clones) > 0 {
		<-clones
	}
	w.put(a, "app.test.x/last", "1")
	w.pass()
	w.equal(a)
	w.stop()
	n := len(clones)
	if n < 7 {
		t.Fatalf("%d steps", n)
	}
	for i := range n {
		clone := <-clones
		s := storetest.Open(t, store.Options{FS: clone})
		at, _, err := s.Cursor("ws://relay.test")
		if err != nil {
			t.Fatal(err)
		}
		v := &world{t: t, net: w.net, store: s, dir: w.dir, opts: w.opts, now: w.clock(), sent: at}
		v.opts.Store, v.opts.Now, v.opts.Wake = s, v.clock, nil
		v.start()
		v.pass()
		v.until(fmt.Sprintf("crash %d is mended", i), func() bool { return v.row(a).State == store.StateSynced })
		v.equal(a)
		v.stop()
		v.until("the log is durable", func() bool { lines, _ := v.log(a); return len(lines) >= 7 })
		if lines, _ := v.log(a); len(lines) != 7 {
			t.Errorf("crash %d: %d live changes, want 7: %v", i, len(lines), lines)
		}
	}
}

// Many repositories drain while events of other repositories are handled.
func TestDrainsTakeTurns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	accounts := w.net.Accounts()
	w.skip()
	last := accounts[len(accounts)-1]
	var completes []func()
	for _, a := range accounts[:len(accounts)-1] {
		completes = append(completes, fetching(w, a, 60))
	}
	w.pass()
	w.hold(last)
	w.skip()
	for _, complete := range completes {
		complete()
	}
	for _, a := range accounts {
		w.r.Drain(a.DID())
	}
	began := time.Now()
	w.put(last, "app.test.x/one", "1")
	w.pass()
	t.Log("an event of another took", time.Since(began))
	w.equal(last)
	for _, a := range accounts {
		w.until("all are drained", func() bool { return w.row(a).State == store.StateSynced })
		w.equal(a)
	}
}

func newWorldIn(t testing.TB, o store.Options, change ...func(*world)) *world {
	return newWorld(t, append(change, func(w *world) { w.opts.Store = storetest.Open(t, o) })...)
}
