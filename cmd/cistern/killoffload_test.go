package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cistern/archive"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"

	"golang.org/x/sync/errgroup"
)

// offloadSteps are the moments of a segment at which a daemon kills itself; "" is any moment, at
// which it is killed.
var offloadSteps = []string{"", "built", "stored", "read back", "recorded"}

// offloads makes small worlds have many segments, and has a daemon kill itself at a step: "stored:3"
// is the third time that a segment is stored.
func offloads(tune *tuning, die string) {
	usual := tune.store
	tune.store = func(o *store.Options) {
		usual(o)
		o.PruneEvery = 50 * time.Millisecond
	}
	step, times, _ := strings.Cut(die, ":")
	left, _ := strconv.Atoi(times)
	tune.archive = func(o *archive.Options) {
		o.SegmentBytes, o.FrameEvents = 4<<10, 20
		o.Step = func(name string) { // one goroutine offloads
			if name != step {
				return
			}
			if left--; left == 0 {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		}
	}
}

// TestKillOffload kills a daemon while it moves its log into segments: at each step of a segment, and
// at any moment. Accounts act, and its filter changes; its log is short, so that consumers of every
// kind read segments, and no reader loses its place. At the end a replay from the first event has
// every event that any consumer got, and leaves what the store has; and so does each consumer. In a
// calm world, of an odd seed, nothing is ever hidden: then the replay has all ids, and each consumer
// got all events that it wants.
//
// Variables are those of TestModel; there are 2 seeds without them, one in the fast part.
func TestKillOffload(t *testing.T) {
	storetest.WithoutRace(t)
	t.Parallel()
	standard, kills := uint64(2), 10
	if testing.Short() {
		standard, kills = 1, 5
	}
	var mu sync.Mutex
	met := map[string]int{}
	first, seeds := testNumber(t, "CISTERNTEST_SEED", 1), testNumber(t, "CISTERNTEST_SEEDS", standard)
	t.Cleanup(func() {
		t.Logf("met %v", met)
		for _, step := range offloadSteps {
			if met["kills "+step] == 0 && !t.Failed() {
				t.Errorf("no daemon was killed at step %q", step)
			}
		}
	})
	for seed := first; seed < first+seeds; seed++ {
		t.Run(fmt.Sprintf("CISTERNTEST_SEED=%d", seed), func(t *testing.T) {
			t.Parallel()
			w := &offloaded{newDeliveries(t, seed), filepath.Join(t.TempDir(), "events"), seed%2 == 1}
			if w.calm {
				w.history = w.net.History(seed, simnet.Weights{Commit: 70, Redundant: 6, Empty: 2, Burst: 5, Handle: 4, Key: 1, New: 3})
			}
			w.play(kills)
			mu.Lock()
			defer mu.Unlock()
			for what, n := range w.ledger.met {
				met[what] += n
			}
		})
	}
}

// offloaded are deliveries of a daemon that moves its log to a directory.
type offloaded struct {
	*deliveries
	dir  string
	calm bool
}

// play lives through the kills, and compares at the end.
func (w *offloaded) play(kills int) {
	t := w.t
	args := w.index.args(w.net, "--mode", "full", "--relay", w.net.Relay(), "--jetstream-dictionary", dictionaryFile,
		"--offload", w.dir, "--offload-after", "7d")
	short := append(slices.Clone(args), "--retention", []string{"100ms", "300ms"}[w.rng.IntN(2)], "--subscription-retention", "0",
		"--snapshot-retention", "0")
	c := w.begin(short, "")
	w.index.prime(t, w.net, w.net.RelayHost())
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	all := w.followers()
	if testing.Short() {
		few := []string{"stream", "stream, filtered", "exclusive", "replayed", "jetstream 2, times"}
		maps.DeleteFunc(all, func(name string, _ follower) bool { return !slices.Contains(few, name) })
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		f := all[name]
		g.Go(func() error {
			if err := w.follow(ctx, f); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	for i := 0; i < kills && ctx.Err() == nil; i++ {
		step := offloadSteps[i%len(offloadSteps)]
		w.live(ctx, c, step != "")
		w.end(c)
		w.ledger.count("kills "+step, 1)
		next := offloadSteps[(i+1)%len(offloadSteps)]
		if next != "" {
			next += ":" + strconv.Itoa(1+w.rng.IntN(3))
		}
		c = w.begin(short, next)
	}
	w.live(ctx, c, false)
	w.end(c)
	c = w.begin(args, "") // what is left of the log stays
	if ctx.Err() == nil {
		w.quiet(ctx)
		w.stop(c)
		c = w.begin(args, "")
		w.freeze(ctx)
	}
	if err := g.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, c.stderr)
	}
	tail := w.index.tail(t)
	if err := errors.Join(c.cmd.Process.Signal(os.Interrupt), c.wait(t)); err != nil {
		t.Fatalf("the last daemon: %v\n%s", err, c.stderr)
	}
	w.compare(all)
	w.replays()
	for _, lack := range w.ledger.missing(w.shaky) {
		t.Error(lack)
	}
	segments, err := filepath.Glob(filepath.Join(w.dir, "log", "*", "*.seg"))
	if err != nil || len(segments) < 3 || tail < 2 {
		t.Errorf("%d segments, %v; the log of the store begins at %d of %d", len(segments), err, tail, w.head)
	}
	t.Logf("head %d, tail %d, %d segments, %d events left, met %v", w.head, tail, len(segments), len(w.log), w.ledger.met)
}

// begin starts a daemon that dies at a step; "" for no step.
func (w *offloaded) begin(args []string, die string) *child {
	c := startChild(w.t, args, childOffloads, dieVariable+"="+die)
	w.index.await(w.t, "the daemon to answer", func() error {
		if len(c.done) > 0 {
			return nil // it died at the step
		}
		_, err := w.index.counts(w.t.Context())
		return err
	})
	return c
}

// end kills the daemon, unless it is dead.
func (w *offloaded) end(c *child) {
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		w.t.Error(err)
	}
	if err := c.wait(w.t); err == nil || !strings.Contains(err.Error(), "killed") {
		w.t.Fatalf("the daemon ended by itself: %v\n%s", err, c.stderr)
	}
	w.look()
}

// live has the accounts act while the log moves, for a while and, if the daemon is to die by itself,
// until it does.
func (w *offloaded) live(ctx context.Context, c *child, dies bool) {
	ctx, cancel := context.WithCancel(ctx)
	var g errgroup.Group
	g.Go(func() error {
		for ctx.Err() == nil {
			_, _ = w.request(ctx, "POST", "/maintenance/offload", nil, nil)
			pause(ctx, 30*time.Millisecond)
		}
		return nil
	})
	for n := 30 + w.rng.IntN(80); (n > 0 || dies) && len(c.done) == 0 && ctx.Err() == nil; n-- {
		if n < 0 {
			pause(ctx, 50*time.Millisecond)
		}
		switch change := w.history.Step(); change.Kind {
		case "status", "delete", "migrate":
			w.shaky[change.DID] = true
		}
		pause(ctx, time.Duration(w.rng.IntN(15))*time.Millisecond)
		if w.rng.IntN(40) == 0 && !w.calm {
			_, _ = w.request(ctx, "PATCH", "/filter", w.filterChange(), nil) // a call that fails met the kill
		}
	}
	cancel()
	_ = g.Wait()
}

// follow runs a follower until it has everything. It never loses its place in the log.
func (w *offloaded) follow(ctx context.Context, f follower) error {
	for _, round := range []func(context.Context) error{f.session, f.settle} {
		for done := false; !done && ctx.Err() == nil; {
			switch err := round(ctx); {
			case errors.Is(err, errAway):
				pause(ctx, 5*time.Millisecond)
			case err != nil:
				return err
			default:
				done = w.frozen.Load()
			}
		}
	}
	return ctx.Err()
}

// replays checks the replay of everything from the first event on.
func (w *offloaded) replays() {
	s := w.open()
	defer s.Close()
	if oldest := s.Segments(); len(oldest) == 0 || oldest[0].First != 1 {
		w.t.Errorf("the segments begin at %v", oldest)
	}
	got, last := fold{}, uint64(0)
	for i := range w.log {
		ev := &w.log[i]
		if ev.id <= last {
			w.t.Errorf("event %d comes after %d", ev.id, last)
		}
		if w.calm && ev.id != last+1 {
			w.t.Errorf("event %d comes after %d, and nothing is hidden", ev.id, last)
		}
		last = ev.id
		got.take(ev)
	}
	shown := w.shown(s)
	for _, did := range w.net.DIDs() {
		if !maps.Equal(got[did], shown[did]) {
			w.t.Errorf("%s: the replay leaves %v, the store has %v, after\n%s", did, got[did], shown[did],
				strings.Join(w.ledger.story("the whole log", did), "\n"))
		}
	}
	if w.ledger.met["gaps"] > 0 || w.ledger.met["fell out of the log"] > 0 {
		w.t.Errorf("consumers lost their place: %v", w.ledger.met)
	}
}
