package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

// deliveries is a daemon that follows a simulated network, is killed and started again, and has
// consumers of every kind.
type deliveries struct {
	t       *testing.T
	seed    uint64
	rng     *rand.Rand // of the network and the daemon
	net     *simnet.Network
	history *simnet.History
	index   *testIndex
	ledger  *ledger
	shaky   map[string]bool // accounts whose records may have been hidden or dropped

	decoder    *zstd.Decoder
	dictionary uint32

	mu        sync.Mutex
	positions map[string]*settledBefore // mu guards: as the last daemon left them

	frozen atomic.Bool // what follows is final
	head   uint64
	log    []delivered // what is left of the log
}

// settledBefore is the position of a subscription on disk.
type settledBefore struct{ store.SubscriptionPosition }

// settled reports whether an event was acknowledged before the position was written.
func (p *settledBefore) settled(id uint64) bool {
	switch {
	case p == nil:
		return false
	case id > store.NumbersFrom:
		return p.settledNumber(id)
	case id >= p.Next:
		return false
	}
	_, outstanding := slices.BinarySearch(p.Outstanding, id)
	return !outstanding
}

// TestConsumers has consumers of every kind and format follow a daemon, with random filters. They
// connect, lag, change their filters, disconnect and crash, while accounts act, the filter of the
// daemon changes, its log is pruned, and the daemon is killed. At the end each consumer holds what
// the store does under its filter. On each connection ids rise, and nothing that the filter wants
// is missing between two of them. No event comes again whose acknowledgement was written, and every
// event comes again that was not acknowledged.
//
// Variables are those of TestModel; there are 3 seeds without them.
func TestConsumers(t *testing.T) {
	storetest.WithoutRace(t)
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	t.Parallel()
	var mu sync.Mutex
	met := map[string]int{}
	first, seeds := testNumber(t, "CISTERNTEST_SEED", 1), testNumber(t, "CISTERNTEST_SEEDS", 3)
	t.Cleanup(func() {
		t.Logf("met %v", met)
		for _, what := range []string{"kills", "fell out of the log", "snapshots", "updates",
			"updates without an answer", "crashes of consumers", "filters of subscriptions",
			"gaps", "redelivered", "clean ends", "replays with a snapshot",
			"snapshots of subscriptions", "conditions"} {
			if seeds >= 3 && met[what] == 0 && !t.Failed() {
				t.Errorf("no run met %q", what)
			}
		}
	})
	for seed := first; seed < first+seeds; seed++ {
		t.Run(fmt.Sprintf("CISTERNTEST_SEED=%d", seed), func(t *testing.T) {
			t.Parallel()
			w := newDeliveries(t, seed)
			w.play()
			mu.Lock()
			defer mu.Unlock()
			for what, n := range w.ledger.met {
				met[what] += n
			}
		})
	}
}

func newDeliveries(t *testing.T, seed uint64) *deliveries {
	rng := rand.New(rand.NewPCG(seed, 11))
	w := &deliveries{t: t, seed: seed, rng: rng, index: newTestIndex(t), ledger: newLedger(),
		shaky: map[string]bool{}, positions: map[string]*settledBefore{}}
	w.net = startNetwork(t, simnet.Options{Seed: seed, Clutter: true, Hosts: 2,
		Repos: 8 + rng.IntN(12), RecordsMedian: 8, RecordsMax: 80})
	w.history = w.net.History(seed, simnet.Weights{Commit: 70, Redundant: 6, Empty: 2, Burst: 5,
		Status: 6, Handle: 4, Key: 1, Migrate: 2, Delete: 1, New: 3, Sync: 2})
	dict, err := os.ReadFile(dictionaryFile)
	if err != nil {
		t.Fatal(err)
	}
	w.dictionary = binary.LittleEndian.Uint32(dict[4:])
	w.decoder, err = zstd.NewReader(nil, zstd.WithDecoderDicts(dict),
		zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.decoder.Close)
	return w
}

// dictionaryFile is the dictionary of /stream. It also does for version 1 of Jetstream.
const dictionaryFile = "../../api/deliver/format/messages.dict"

// followers returns one consumer of each kind.
func (w *deliveries) followers() map[string]follower {
	all := map[string]follower{}
	stream := func(name string, way way, want wish) {
		all[name] = &stream{w: w, name: name, way: way, rng: w.child(),
			streamState: streamState{want: want, held: fold{}}}
	}
	coin := func() bool { return w.rng.IntN(2) == 0 }
	batch := func() int { return w.rng.IntN(2) * (1 + w.rng.IntN(100)) }
	stream("stream", &cisternWay{}, wish{})
	stream("stream, filtered", &cisternWay{cbor: coin()}, w.random(w.rng, true))
	stream("stream, deflate", &cisternWay{deflate: true, batch: batch(), tokens: coin()},
		w.random(w.rng, true))
	stream("stream, zstd", &cisternWay{zstd: true, batch: batch(), tokens: coin()},
		w.random(w.rng, true))
	stream("snapshot", &cisternWay{tokens: true, batch: batch()}, w.random(w.rng, false))
	stream("jetstream 1, ids", &jetstream1Way{zstd: coin()}, w.random(w.rng, false))
	stream("jetstream 1, times", &jetstream1Way{zstd: coin(), timed: true}, w.random(w.rng, false))
	kinds := w.random(w.rng, true)
	kinds.Actions, kinds.Live = nil, nil
	kinds.Kinds = slices.DeleteFunc(kinds.Kinds, func(k string) bool { return k == "repo" })
	stream("jetstream 2, ids", &jetstream2Way{zstd: coin()}, kinds)
	stream("jetstream 2, times", &jetstream2Way{zstd: coin(), timed: true}, w.random(w.rng, false))
	all["exclusive"] = newSubscriber(w, "exclusive", w.child(), 1)
	all["shared"] = newSubscriber(w, "shared", w.child(), 3)
	all["tap"] = newTap(w, w.child())
	all["replayed"] = newReplayer(w, "replayed", w.child(), 1)
	all["replayed, shared"] = newReplayer(w, "replayed-shared", w.child(), 3)
	all["webhook"] = newWebhook(w, "webhook", w.child(), 1)
	all["webhooks"] = newWebhook(w, "webhooks", w.child(), 4)
	return all
}

func (w *deliveries) child() *rand.Rand { return rand.New(rand.NewPCG(w.rng.Uint64(), 4)) }

// random makes a filter. A rich one may also choose kinds, actions, and whether events are live.
func (w *deliveries) random(rng *rand.Rand, rich bool) (out wish) {
	some := func(list []string, n int) (picked []string) {
		for range n {
			picked = append(picked, list[rng.IntN(len(list))])
		}
		slices.Sort(picked)
		return slices.Compact(picked)
	}
	if rng.IntN(2) == 0 {
		out.Collections = some(patternPool, 1+rng.IntN(3))
	}
	if rng.IntN(3) == 0 {
		out.DIDs = some(w.net.DIDs(), 1+rng.IntN(6))
	}
	if !rich {
		return out
	}
	switch rng.IntN(10) {
	case 0, 1:
		out.Kinds = []string{"account", "record"}
	case 2:
		out.Kinds = []string{"record"}
	case 3:
		out.Kinds, out.Collections = []string{"identity", "account"}, nil
		return out
	case 4, 5:
		out.Kinds = []string{"account", "record", "repo"}
	case 6:
		out.Kinds, out.Collections = []string{"repo"}, nil
		return out
	}
	if rng.IntN(8) == 0 {
		out.Actions = some([]string{"create", "update", "delete"}, 2)
	}
	if rng.IntN(8) == 0 {
		live := rng.IntN(2) == 0
		out.Live = &live
	}
	return out
}

// other returns a filter to replace another. less reports whether it wants nothing that the other
// does not want.
func (w *deliveries) other(rng *rand.Rand, was wish, rich bool) (out wish, less bool) {
	if out = was; rng.IntN(2) == 0 || len(was.DIDs) == 1 {
		return w.random(rng, rich), false
	}
	if out.DIDs = slices.Clone(was.DIDs); len(was.DIDs) == 0 {
		out.DIDs = slices.Clone(w.net.DIDs())
	}
	out.DIDs = slices.Delete(out.DIDs, 0, 1+rng.IntN(len(out.DIDs)-1))
	return out, true
}

// play lives through the kills, and compares at the end.
func (w *deliveries) play() {
	t := w.t
	args := w.index.args(w.net, "--mode", "full", "--relay", w.net.Relay(),
		"--jetstream-dictionary", dictionaryFile)
	short := append(slices.Clone(args),
		"--retention", []string{"300ms", "700ms", "2s"}[w.rng.IntN(3)],
		"--subscription-retention", []string{"0", "500ms", "1s"}[w.rng.IntN(3)],
		"--snapshot-retention", []string{"0", "500ms", "3s"}[w.rng.IntN(3)])
	c := w.start(short)
	w.index.prime(t, w.net, w.net.RelayHost())
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	all := w.followers()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		f, rng := all[name], w.child()
		g.Go(func() error {
			if err := w.follow(ctx, f, rng, name == "stream"); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	for range 2 + w.rng.IntN(3) {
		w.live(ctx)
		w.kill(c)
		c = w.start(short)
	}
	w.live(ctx)
	for !w.ledger.hasMet("fell out of the log", "gaps") && ctx.Err() == nil {
		w.live(ctx) // a fast machine gets here before the log is old enough to be pruned
	}
	w.kill(c)
	c = w.start(args) // what is left of the log stays
	if ctx.Err() == nil {
		w.quiet(ctx)
		w.stop(c)
		c = w.start(args)
		w.freeze(ctx)
	}
	if err := g.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, c.stderr)
	}
	if err := errors.Join(c.cmd.Process.Signal(os.Interrupt), c.wait(t)); err != nil {
		t.Fatalf("the last daemon: %v\n%s", err, c.stderr)
	}
	w.compare(all)
	for _, lack := range w.ledger.missing(w.shaky) {
		t.Error(lack)
	}
	if t.Failed() {
		for name, story := range w.ledger.told {
			t.Logf("%s: %s", name, strings.Join(story, "\n"))
		}
	}
	t.Logf("head %d, %d events left, met %v", w.head, len(w.log), w.ledger.met)
}

// follow runs a follower until it has everything. An eager one does not rest.
func (w *deliveries) follow(ctx context.Context, f follower, rng *rand.Rand, eager bool) error {
	for !w.frozen.Load() && ctx.Err() == nil {
		switch err := f.session(ctx); {
		case errors.Is(err, errOutdated):
			w.ledger.count("fell out of the log", 1)
			f.restart()
		case errors.Is(err, errAway):
			pause(ctx, 5*time.Millisecond)
		case err != nil:
			return err
		}
		switch n := rng.IntN(20); {
		case eager:
		case n < 4:
			pause(ctx, time.Duration(rng.IntN(100))*time.Millisecond)
		case n == 4, n < 10 && !w.ledger.hasMet("fell out of the log", "gaps"): // until it is too late
			for !errors.Is(w.keeps(f.at()), errOutdated) && !w.frozen.Load() && ctx.Err() == nil {
				pause(ctx, 20*time.Millisecond)
			}
		}
	}
	for ctx.Err() == nil {
		switch err := f.settle(ctx); {
		case errors.Is(err, errOutdated):
			w.ledger.count("fell out of the log", 1)
			f.restart()
		case errors.Is(err, errAway):
			pause(ctx, 5*time.Millisecond)
		default:
			return err
		}
	}
	return ctx.Err()
}

// start starts a daemon, and waits until it answers.
func (w *deliveries) start(args []string) *child {
	c := startChild(w.t, args, childPrunes)
	w.index.await(w.t, "the daemon to answer", func() error {
		select {
		case err := <-c.done:
			w.t.Fatalf("the daemon ended by itself: %v\n%s", err, c.stderr)
		default:
		}
		_, err := w.index.counts(w.t.Context())
		return err
	})
	return c
}

// live has the accounts act, and changes the filter of the daemon, for a while.
func (w *deliveries) live(ctx context.Context) {
	steps := 20 + w.rng.IntN(80)
	for range steps {
		if ctx.Err() != nil {
			return
		}
		switch change := w.history.Step(); change.Kind {
		case "status", "delete", "migrate":
			w.shaky[change.DID] = true
		}
		pause(ctx, time.Duration(w.rng.IntN(15))*time.Millisecond)
		if w.rng.IntN(40) == 0 {
			w.refilter(ctx)
		}
	}
}

// refilter changes the filter of the daemon.
func (w *deliveries) refilter(ctx context.Context) {
	body := w.filterChange()
	status, err := w.request(ctx, "PATCH", "/filter", body, nil)
	if (err != nil || status != http.StatusOK) && ctx.Err() == nil {
		w.t.Errorf("PATCH /filter %v: %d, %v", body, status, err)
	}
	w.ledger.count("filters", 1)
}

// filterChange returns a change of the filter of the daemon.
func (w *deliveries) filterChange() map[string]any {
	body := map[string]any{}
	switch w.rng.IntN(4) {
	case 0:
		body["store"] = []string{"all", "wanted"}[w.rng.IntN(2)]
	case 1:
		excludes := []string{}
		for range w.rng.IntN(3) {
			did := w.net.DIDs()[w.rng.IntN(len(w.net.DIDs()))]
			w.shaky[did] = true
			excludes = append(excludes, did)
		}
		body["excludes"] = excludes
	default:
		collections := []string{}
		for range w.rng.IntN(4) {
			collections = append(collections, patternPool[w.rng.IntN(len(patternPool))])
		}
		body["collections"] = collections
	}
	return body
}

// kill kills the daemon.
func (w *deliveries) kill(c *child) {
	if err := c.cmd.Process.Kill(); err != nil {
		w.t.Error(err)
	}
	if err := c.wait(w.t); err == nil || !strings.Contains(err.Error(), "killed") {
		w.t.Fatalf("the daemon ended by itself: %v\n%s", err, c.stderr)
	}
	w.ledger.count("kills", 1)
	w.look()
}

// stop stops the daemon, and the network for ever, so that the next one has nothing to do.
func (w *deliveries) stop(c *child) {
	for _, h := range append(w.net.Hosts(), w.net.RelayHost()) {
		if err := h.Down(); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := errors.Join(c.cmd.Process.Signal(os.Interrupt), c.wait(w.t)); err != nil {
		w.t.Fatalf("%v\n%s", err, c.stderr)
	}
	w.look()
}

// look checks the store, and reads the positions of the subscriptions.
func (w *deliveries) look() {
	t := w.t
	s := w.open()
	defer s.Close()
	subs, err := s.Subscriptions()
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, sub := range subs {
		p, err := s.SubscriptionPosition(sub.Name)
		if err != nil {
			t.Fatal(err)
		}
		w.positions[sub.Name] = &settledBefore{p}
		w.ledger.tell(sub.Name, "the daemon ended, position %+v", p)
	}
}

// open opens the store that no daemon uses, and checks it.
func (w *deliveries) open() *store.Store {
	s, err := openForCheck(w.index.dir, newLogger(io.Discard, 0))
	if err != nil {
		w.t.Fatal(err)
	}
	n, err := s.Check(w.t.Context(), func(d string) { w.t.Errorf("difference: %s", d) })
	if n != 0 || err != nil {
		w.t.Errorf("check: %d differences, %v", n, err)
	}
	return s
}

// position returns the position of a subscription as the last daemon left it, nil without one.
func (w *deliveries) position(name string) *settledBefore {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.positions[name]
}

// quiet waits until nothing is left to do.
func (w *deliveries) quiet(ctx context.Context) {
	t, x := w.t, w.index
	x.await(t, "the end of all work", func() error {
		counts, err := x.counts(ctx)
		if err != nil {
			return err
		}
		var f struct{ Change *json.RawMessage }
		if _, err := w.request(ctx, "GET", "/filter", nil, &f); err != nil {
			return err
		}
		for _, src := range x.sources(t, "?is_pds=false") {
			if head := w.net.RelayHost().Head(); src.Stats.Cursor != head {
				return fmt.Errorf("%s is read up to %d of %d", src.URL, src.Stats.Cursor, head)
			}
		}
		for _, name := range []string{"pending", "syncing", "draining", "resync", "buffered"} {
			if counts[name] > 0 {
				return fmt.Errorf("%s is %d of %v", name, counts[name], counts)
			}
		}
		if f.Change != nil {
			return fmt.Errorf("the filter changes: %s", *f.Change)
		}
		return nil
	})
}

// freeze reads what is left of the log, which does not grow any more.
func (w *deliveries) freeze(ctx context.Context) {
	w.head = w.index.head(w.t)
	whole := &stream{w: w, name: "the whole log", rng: w.child(), way: &cisternWay{}, log: &w.log,
		streamState: streamState{held: fold{}, begun: true,
			want: wish{Kinds: []string{"account", "identity", "record", "repo"}}}}
	if err := whole.settle(ctx); err != nil {
		w.t.Fatal(err)
	}
	w.frozen.Store(true)
}

// last returns the last event of the log that a filter wants, 0 if it wants no event.
func (w *deliveries) last(want *wish) uint64 {
	for _, ev := range slices.Backward(w.log) {
		if want.wants(&ev) {
			return ev.id
		}
	}
	return 0
}

// conditions returns the newest state of each repository that the log tells.
func (w *deliveries) conditions() map[string]string {
	out := map[string]string{}
	for _, ev := range w.log {
		if ev.what == "repo" {
			state, _, _ := strings.Cut(ev.action, " ")
			out[ev.did] = state
			w.ledger.count("conditions", 1)
		}
	}
	return out
}

// compare compares what consumers hold with the store.
func (w *deliveries) compare(all map[string]follower) {
	s := w.open()
	defer s.Close()
	if s.Head() != w.head {
		w.t.Errorf("the log grew from %d to %d", w.head, s.Head())
	}
	shown := w.shown(s)
	for did, said := range w.conditions() {
		r, err := s.RepoOrNew(did)
		dropped := r.Ordinal == 0 && said == store.ConditionUntracked.String()
		if err != nil || r.Told.String() != said && !dropped {
			w.t.Errorf("the log says that %s is %s, and the row %s (%v)", did, said, r.Told, err)
		}
	}
	for name, f := range all {
		held, want, ok := f.result()
		if !ok {
			continue
		}
		wants := shown.clone()
		wants.keep(&want)
		for _, did := range w.net.DIDs() {
			if !maps.Equal(held[did], wants[did]) {
				row, _ := s.RepoOrNew(did)
				w.t.Errorf("%s, filter %+v: holds of %s (%s, %s) %v, want %v, after\n%s",
					name, want, did, row.State, row.Status, held[did], wants[did],
					strings.Join(w.ledger.story(name, did), "\n"))
			}
		}
	}
}
