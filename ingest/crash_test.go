package ingest_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
)

// history is what happens to the accounts of TestCrashWhileFollowing, all of it on one relay.
func history(w *world) {
	w.t.Helper()
	a, gone, back, hidden := w.net.Accounts()[0], w.net.Accounts()[1], w.net.Accounts()[2], w.net.Accounts()[3]
	steps := []func(i int){
		func(i int) { w.put(a, "app.test.x/one", fmt.Sprint(i)) },
		func(i int) { w.put(gone, "app.test.x/one", fmt.Sprint(i)) },
		func(i int) { w.put(back, fmt.Sprint("app.test.x/", i), "1") },
		func(i int) { w.put(hidden, "app.test.x/one", fmt.Sprint(i)) },
	}
	play := func(from, to int) {
		for i := from; i < to; i++ {
			for _, step := range steps {
				step(i)
			}
			w.pass() // so that groups are small
		}
	}
	play(0, 4)
	a.SetHandle("a.test")
	back.SetStatus(simnet.Deactivated)
	hidden.SetStatus(simnet.Takendown)
	w.pass()
	steps = slices.Delete(steps, 2, 4)
	play(4, 7)
	gone.SetStatus(simnet.Deleted)
	back.SetStatus(simnet.Active)
	steps = steps[:1]
	w.pass()
	play(7, 9)
	w.pass()
}

// outcome is what a history has left of an account.
type outcome struct {
	State  string
	Status string
	Rev    string
	Log    []string
	Listed int
	Held   int
}

func (w *world) outcomes() (all []outcome) {
	w.t.Helper()
	for _, a := range w.net.Accounts() {
		row := w.row(a)
		o := outcome{State: row.State.String(), Status: row.Status.String(), Rev: row.Rev, Held: len(w.held(row))}
		o.Log, o.Listed = w.log(a)
		all = append(all, o)
	}
	return all
}

// From whatever a crash leaves, the next Run goes on at the cursor that it finds, and ends with the
// same rows and the same log: nothing is lost, and nothing is told twice.
func TestCrashWhileFollowing(t *testing.T) {
	t.Parallel()
	const seed = 3
	t.Logf("seed %d", seed)
	fs, rng := vfs.NewCrashableMem(), rand.New(rand.NewPCG(seed, 0))
	var mu sync.Mutex // guards what follows
	var clones []*vfs.MemFS
	armed := false
	w := newWorldIn(t, store.Options{FS: fs, Step: func(string) {
		mu.Lock()
		defer mu.Unlock()
		if armed {
			clones = append(clones, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 50, 100}[rng.IntN(3)], RNG: rng}))
		}
	}})
	w.hold(w.net.Accounts()...)
	w.skip()
	began := w.sent
	mu.Lock()
	armed = true
	mu.Unlock()
	history(w)
	w.stop()
	mu.Lock()
	defer mu.Unlock()
	armed = false
	want := w.outcomes()
	w.equal(w.net.Accounts()[0])
	if want[1].Status != "deleted" || want[2].State != "pending" || want[3].Status != "takendown" || len(want[0].Log) != 10 || want[1].Held == 0 {
		t.Fatalf("without a crash: %+v", want)
	}
	if len(clones) < 20 {
		t.Fatalf("%d crashes", len(clones))
	}
	middle := 0
	for i, clone := range clones {
		s := storetest.Open(t, store.Options{FS: clone})
		storetest.Check(t, s)
		at, known, err := s.Cursor("ws://relay.test")
		if err != nil {
			t.Fatal(err)
		}
		if known && at < w.sent {
			middle++
		}
		v := &world{t: t, net: w.net, store: s, dir: w.dir, opts: w.opts, now: w.clock(), sent: max(at, began)}
		v.opts.Store, v.opts.Now, v.opts.Wake = s, v.clock, nil
		v.start()
		v.pass()
		v.stop()
		if d := cmp.Diff(want, v.outcomes()); d != "" {
			t.Errorf("crash %d, at cursor %d of %d (-want +got):\n%s", i, at, w.sent, d)
		}
		if at, _, err := s.Cursor("ws://relay.test"); at != v.sent || err != nil {
			t.Errorf("crash %d: the cursor ends at %d, want %d (%v)", i, at, v.sent, err)
		}
	}
	t.Logf("%d crashes, %d behind some events and before others", len(clones), middle)
	if middle < 10 {
		t.Error("the crashes met nothing")
	}
}

// TestMarkMovesWithItsBatch: while another batch holds the place in the log that an event's batch
// is waiting for, the event must not count as done. The cursor in the other batch would cover it,
// and a crash between the two batches would lose the event.
func TestMarkMovesWithItsBatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	w.put(a, "app.test.x/1", "1")
	newest := w.net.RelayHost().Head()
	b := w.store.NewBatch()
	b.SetCursor("ws://other.test", func() int64 {
		w.send()
		// The loop gives a shard that counts too early the time to do so. Otherwise its length does
		// not matter: the batch of the event cannot be committed before this function returns.
		for range 100 {
			if w.feed.Mark() >= newest {
				t.Errorf("the mark covers event %d before its batch is in the log", newest)
				break
			}
			time.Sleep(time.Millisecond)
		}
		return 1
	})
	if err := b.CommitSync(); err != nil {
		t.Fatal(err)
	}
	w.settle()
	if mark := w.feed.Mark(); mark != newest {
		t.Errorf("the mark is %d after event %d", mark, newest)
	}
	w.equal(a)
}
