package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"
)

// crashWorld is a seeded network and a series of daemons that follow it: the first one, and those
// that continue from what a crash left.
type crashWorld struct {
	t       *testing.T
	seed    uint64
	rng     *rand.Rand
	net     *simnet.Network
	history *simnet.History
	plan    plan
	before  map[string]bool
	options store.Options
	starts  []int64                    // positions of the streams when they were first followed
	revs    map[string]map[string]bool // of every account, as far as they were seen
	met     *crashesMet

	begun atomic.Bool // every source has a durable cursor

	// mu guards:
	mu      sync.Mutex
	crashes []*crash
	dice    *rand.Rand
}

// crash is the state that a crash left on disk, and the events that had been published before it.
type crash struct {
	fs    *storetest.CrashFS
	name  string
	depth int
	begun bool
	head  uint64
	told  map[uint64]toldEvent
}

// toldEvent is a published event. A record event disappears with its account.
type toldEvent struct {
	record  bool
	deletes bool
	did     string
	text    string
}

// crashesMet counts, over all seeds, the states that crashes were taken in.
type crashesMet struct {
	mu    sync.Mutex
	found map[string]int // mu guards
}

func (c *crashesMet) add(what string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.found[what] += n
}

// TestCrash clones the file system of a daemon that follows a seeded network, as crashes at random
// moments would leave it. Some crashes hit the recovery from an earlier one. Each clone must pass
// Check, hold every published event under the same id unless its account was deleted since, and
// have cursors that cover only stored events. Then a new daemon continues from the clone. Where the
// streams send every change, its store must become equal to the network, and each change in its log
// must follow from those before it, without a gap or a repetition.
//
// Variables are those of TestModel.
func TestCrash(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	t.Parallel()
	met := &crashesMet{found: map[string]int{}}
	first, seeds := testNumber(t, "CISTERNTEST_SEED", 1), testNumber(t, "CISTERNTEST_SEEDS", storetest.Seeds(60))
	t.Cleanup(func() {
		t.Logf("met %v", met.found)
		for _, what := range []string{"applied", "synced", "flipped", "before ingest", "after ingest", "any moment", "during open",
			"commits buffered", "draining", "wiped", "not synced", "second crashes"} {
			if seeds >= 60 && met.found[what] == 0 {
				t.Errorf("no crash met %q", what)
			}
		}
	})
	for seed := first; seed < first+seeds; seed++ {
		t.Run(fmt.Sprintf("CISTERNTEST_SEED=%d", seed), func(t *testing.T) {
			t.Parallel()
			newCrashWorld(t, seed, met).play()
		})
	}
}

func newCrashWorld(t *testing.T, seed uint64, met *crashesMet) *crashWorld {
	rng := rand.New(rand.NewPCG(seed, 1))
	w := &crashWorld{t: t, seed: seed, rng: rng, met: met, dice: rand.New(rand.NewPCG(seed, 2)), revs: map[string]map[string]bool{}}
	w.plan = plan{relays: 1 + rng.IntN(2), late: rng.IntN(4) == 0, lossy: rng.IntN(6) == 0, steps: 20 + rng.IntN(40)}
	if rng.IntN(6) == 0 {
		w.plan.relays = 0
	}
	w.options = store.Options{Dir: "db", GroupAge: 3 * time.Millisecond}
	if rng.IntN(2) == 0 {
		w.options.SmallBytes = 1 // tables
	}
	if rng.IntN(2) == 0 {
		w.options.MemTableBytes = 128 << 10 // flushes
	}
	w.net = startNetwork(t, simnet.Options{Seed: seed, Clutter: true, Hosts: 2, Repos: 3 + rng.IntN(5), Relays: 2, Manners: simnet.Indigo,
		RecordsMedian: 1 + rng.IntN(12), RecordsMax: 60, OddKeys: rng.IntN(2), Empty: rng.IntN(2)})
	weights := simnet.Weights{Commit: 70, Redundant: 8, Empty: 3, Burst: 4, Status: 10, Handle: 5, Key: 3, Migrate: 3, MigrateKey: 2, Delete: 4, New: 4, Sync: 2}
	if w.plan.relays == 0 {
		weights.Migrate, weights.MigrateKey = 0, 0 // a host may send events before the document names it
	}
	w.history = w.net.History(seed, weights)
	return w
}

// play runs the first daemon, and then one more from every crash.
func (w *crashWorld) play() {
	if w.plan.late { // without deletions, which no later event would show
		w.net.History(w.seed+1, simnet.Weights{Commit: 10, Redundant: 2, Empty: 1, Status: 3, Key: 1}).Run(w.plan.steps / 2)
	}
	w.before = map[string]bool{}
	for _, a := range w.net.Accounts() {
		w.before[a.DID()] = a.Status() != simnet.Active
	}
	l := w.open(&crash{fs: storetest.NewCrashFS()}, w.rng.IntN(3) == 0)
	w.begin(l)
	w.injectFaults(l)
	for range w.plan.steps {
		w.step()
		if w.rng.IntN(3) == 0 {
			time.Sleep(time.Duration(w.rng.IntN(3000)) * time.Microsecond)
		}
		w.perhaps(l, 6, 6)
		if w.rng.IntN(40) == 0 {
			l.streams()[w.rng.IntN(len(l.streams()))].DropConnections()
		}
	}
	w.finale(l)
	l.finish()
	for i := 0; i < len(w.crashes) && !w.t.Failed(); i++ {
		w.recover(w.crashes[i])
		w.crashes[i] = nil
	}
}

// begin waits until every source has a durable cursor.
func (w *crashWorld) begin(l *life) {
	l.connected()
	for _, h := range l.streams() {
		w.starts = append(w.starts, h.Head())
	}
	for _, a := range w.net.Accounts() {
		a.AnnounceIdentity()
	}
	for i, h := range l.streams() {
		if h.Head() == w.starts[i] {
			return // a host without accounts gives no cursor
		}
	}
	l.begun()
	b := l.store.NewBatch()
	b.DropCursor("nobody") // durable with all before it
	if err := b.CommitSync(); err != nil {
		w.t.Fatal(err)
	}
	w.begun.Store(true)
}

// step makes the network do something, and records the true revs.
func (w *crashWorld) step() {
	w.history.Step()
	for _, a := range w.net.Accounts() {
		w.seen(a.DID(), a.Truth().Rev)
	}
}

func (w *crashWorld) seen(did, rev string) {
	if w.revs[did] == nil {
		w.revs[did] = map[string]bool{}
	}
	w.revs[did][rev] = true
}

// injectFaults makes accounts commit while they are fetched, and makes streams fail. It leaves out
// hosts that count backwards: no cursor covers what they send below the cursor.
func (w *crashWorld) injectFaults(l *life) {
	kinds := slices.Clone(harmless)
	if w.plan.lossy {
		kinds = append(kinds, lossy...)
	}
	kinds = slices.DeleteFunc(kinds, func(f simnet.StreamFault) bool {
		return f.Kind == simnet.StreamSeqRegression || f.Kind == simnet.StreamWrongHost && w.plan.relays == 0
	})
	for _, h := range l.streams() {
		for range 3 {
			a := w.account()
			h.InjectStream(simnet.StreamFault{Kind: simnet.StreamTooBig, DID: a.DID(), Count: 3, After: w.rng.IntN(4)})
		}
		for range w.rng.IntN(4) {
			f := kinds[w.rng.IntN(len(kinds))]
			f.Count = 1 + w.rng.IntN(4)
			f.After += w.rng.IntN(10)
			h.InjectStream(f)
		}
	}
	for _, h := range w.net.Hosts() {
		w.gate(h)
		if w.rng.IntN(3) == 0 {
			h.Inject(simnet.Fault{Kind: simnet.Latency, Delay: time.Duration(1+w.rng.IntN(10)) * time.Millisecond})
		}
		if w.rng.IntN(4) == 0 {
			h.Inject(simnet.Fault{Kind: simnet.ServerError, Count: 1 + w.rng.IntN(3)})
		}
	}
}

func (w *crashWorld) account() *simnet.Account {
	accounts := w.net.Accounts()
	return accounts[w.rng.IntN(len(accounts))]
}

// gate makes some accounts commit after their copy was taken and before it is sent.
func (w *crashWorld) gate(h *simnet.Host) {
	for _, a := range w.net.Accounts() {
		commits := w.rng.IntN(4)
		h.Inject(simnet.Fault{Kind: simnet.Gate, DID: a.DID(), Count: 1 + w.rng.IntN(3), Delay: time.Duration(w.rng.IntN(8)) * time.Millisecond, Hook: func() {
			for range commits {
				mutate(a)
			}
			time.Sleep(time.Duration(commits) * time.Millisecond)
		}})
	}
}

// mutate makes an account commit, if it exists.
func mutate(a *simnet.Account) {
	if a.Status() == simnet.Active {
		_, _ = a.Mutate(2) // it may be deleted meanwhile
	}
}

// finale makes some accounts write for the last time while they are fetched, and takes crashes
// meanwhile. No later commit repairs what is lost here.
func (w *crashWorld) finale(l *life) {
	for range 3 {
		a := w.account()
		for _, h := range l.streams() {
			h.InjectStream(simnet.StreamFault{Kind: simnet.StreamTooBig, DID: a.DID(), Count: 1})
		}
		for _, h := range w.net.Hosts() {
			h.ClearFaults()
			h.Inject(simnet.Fault{Kind: simnet.Gate, DID: a.DID(), Count: 1, Hook: func() {
				mutate(a)
				time.Sleep(3 * time.Millisecond)
			}})
		}
		if w.crashed() < 9 {
			l.arm("draining", 1+w.rng.IntN(2))
		}
		mutate(a)
		time.Sleep(time.Duration(5+w.rng.IntN(10)) * time.Millisecond)
		w.perhaps(l, 9, 4)
		w.seen(a.DID(), a.Truth().Rev)
	}
}

// perhaps takes a crash now, or soon at a durable step.
func (w *crashWorld) perhaps(l *life, most, oneIn int) {
	if w.crashed() >= most || w.rng.IntN(oneIn) > 0 {
		return
	}
	names := []string{"", "", "", "flipped", "before ingest", "after ingest", "now"}
	switch name := names[w.rng.IntN(len(names))]; name {
	case "now":
		l.crash("any moment")
	case "":
		l.arm(name, 1+w.rng.IntN(20))
	default:
		l.arm(name, 1)
	}
}

func (w *crashWorld) crashed() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.crashes)
}

// life is one daemon, from the opening of its store to its crash.
type life struct {
	*model
	world *crashWorld
	from  *crash
	armed atomic.Pointer[trap]
}

// trap is a crash at the nth durable step with a name. The name "" matches every step, and
// "draining" every step while a repository is draining.
type trap struct {
	name string
	left atomic.Int64
}

func (l *life) arm(name string, n int) {
	tr := &trap{name: name}
	tr.left.Store(int64(n))
	l.armed.Store(tr)
}

// open starts a life. With early it may crash before the daemon is completely open.
func (w *crashWorld) open(from *crash, early bool) *life {
	m := &model{repeats: true, t: w.t, seed: w.seed, rng: w.rng, net: w.net, plan: w.plan, before: w.before, stop: func() {}}
	l := &life{model: m, world: w, from: from}
	if from.depth > 0 && !from.begun {
		m.plan.lossy = true // the events between are lost
	}
	if early {
		l.arm("", 1+w.rng.IntN(10))
	}
	o := w.options
	o.FS, o.Step = from.fs, func(name string) {
		if tr := l.armed.Load(); tr != nil && l.meets(tr, name) && tr.left.Add(-1) == 0 {
			l.crash(name)
		}
	}
	s, err := store.Open(o)
	if err != nil {
		w.t.Fatalf("%s: %v", from.describe(), err)
	}
	m.store = s
	l.checkOpened()
	m.start()
	w.t.Cleanup(func() { m.stop() })
	return l
}

func (l *life) meets(tr *trap, name string) bool {
	return tr.name == "" || tr.name == name || tr.name == "draining" && l.store.Counts()["draining"] > 0
}

// crash clones the disk. It reads the published events first.
func (l *life) crash(name string) {
	w := l.world
	c := &crash{name: name, depth: l.from.depth + 1, told: maps.Clone(l.from.told), head: l.from.head, begun: w.begun.Load() && (l.from.begun || l.from.depth == 0)}
	if l.store == nil {
		c.name = "during open"
	} else {
		c.head = l.store.Head()
		if l.store.Counts()["buffered"] > 0 {
			w.met.add("commits buffered", 1)
		}
		told, err := toldOf(l.store)
		if err != nil {
			w.t.Errorf("%s: %v", c.describe(), err)
		}
		if c.told == nil {
			c.told = map[uint64]toldEvent{}
		}
		maps.Copy(c.told, told)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	percent := []int{0, 50, 100}[w.dice.IntN(3)]
	c.fs = l.from.fs.Clone(w.dice, percent)
	c.name = fmt.Sprintf("%s, %d%% of what is not synced", c.name, percent)
	w.crashes = append(w.crashes, c)
	w.met.add(strings.SplitN(c.name, ",", 2)[0], 1)
	if c.depth > 1 {
		w.met.add("second crashes", 1)
	}
}

func (c *crash) describe() string {
	return fmt.Sprintf("crash %d (%s) at head %d", c.depth, c.name, c.head)
}

// toldOf returns every event that a reader sees, by id.
func toldOf(s *store.Store) (map[uint64]toldEvent, error) {
	out := map[uint64]toldEvent{}
	last := int64(0)
	_, err := readLog(s, s.Tail(), func(e *store.Event) error {
		if e.Time <= last {
			return fmt.Errorf("event %d is of %d, and the one before of %d", e.ID, e.Time, last)
		}
		last = e.Time
		out[e.ID] = toldEvent{e.Kind == store.KindRecord, e.Kind == store.KindAccount && e.Status == store.StatusDeleted, e.DID,
			fmt.Sprint(e.Kind, e.DID, e.Time, e.Live, e.Rev, e.Action, string(e.Collection), string(e.Rkey), e.CID, e.Record, e.Status, e.Handle, e.PDS, e.Condition, e.Reason)}
		return nil
	})
	return out, err
}

// readLog calls fn for the events from an id on, as far as a reader sees them now. The next id is
// beyond the head, unless a later batch that is not durable yet hides the event of that id: in the
// middle of a commit it stays hidden until the commit ends.
func readLog(s *store.Store, from uint64, fn func(*store.Event) error) (next uint64, err error) {
	for next = from; next <= s.Head(); {
		at := next
		if next, err = s.ReadLog(context.Background(), at, 1000, fn); err != nil || next == at {
			break
		}
	}
	return next, err
}

// readWholeLog reads a log whose events are all durable.
func readWholeLog(t testing.TB, s *store.Store, fn func(*store.Event) error) {
	t.Helper()
	if next, err := readLog(s, s.Tail(), fn); err != nil || next <= s.Head() {
		t.Fatalf("the log is read up to %d of %d: %v", next, s.Head(), err)
	}
}

// TestToldInCommit reads the published events in the middle of a commit that hides an account,
// whose events are no longer published.
func TestToldInCommit(t *testing.T) {
	t.Parallel()
	var s *store.Store
	var told map[uint64]toldEvent
	armed := false
	s = storetest.Open(t, store.Options{Step: func(name string) {
		if armed && name == "applied" {
			armed = false
			var err error
			if told, err = toldOf(s); err != nil {
				t.Error(err)
			}
		}
	}})
	for i := range 2 {
		row := store.Repo{DID: storetest.DID(i), State: store.StatePending, Tracked: store.ByOperator}
		b := s.NewBatch()
		b.PutRepo(&row)
		if err := b.CommitSync(); err != nil {
			t.Fatal(err)
		}
		copied := storetest.Records{"app.test.a/1": storetest.Text("one")}.Import(row, storetest.Rev(1))
		copied.Done = func(_ store.Repo, err error) {
			if err != nil {
				t.Error(err)
			}
		}
		if err := errors.Join(s.Import(t.Context(), copied), s.FlushImports()); err != nil {
			t.Fatal(err)
		}
	}
	row, err := s.Repo(storetest.DID(1))
	if err != nil {
		t.Fatal(err)
	}
	row.Status, armed = store.StatusDeactivated, true
	b := s.NewBatch()
	b.PutRepo(&row)
	if err := b.CommitSync(); err != nil {
		t.Fatal(err)
	}
	if len(told) != 2 || told[1].did != storetest.DID(0) || told[2].did != storetest.DID(0) {
		t.Errorf("told %v", told)
	}
}

// recover continues from a crash, while the network continues too.
func (w *crashWorld) recover(c *crash) {
	l := w.open(c, c.depth < 3 && w.rng.IntN(3) == 0)
	for range w.rng.IntN(4) {
		w.step()
		w.perhaps(l, 10, 8)
	}
	l.finish()
}

// exact reports whether the streams send every change that this life does not hold.
func (l *life) exact() bool {
	return !l.world.plan.lossy && l.world.begun.Load() && (l.from.begun || l.from.depth == 0)
}

// quiet ends all faults. Unless the streams send every change, each account announces its state.
func (l *life) quiet() {
	if !l.exact() {
		l.model.quiet()
		return
	}
	for _, h := range append(l.net.Hosts(), l.net.Relays()...) {
		h.ClearFaults()
		h.ClearStreamFaults()
		h.DropConnections() // some were silent
	}
}

// finish lets the daemon catch up, and compares its store and its log with the network.
func (l *life) finish() {
	l.quiet()
	l.settle()
	l.armed.Store(nil)
	l.stop()
	t := l.world.t
	if t.Failed() {
		return
	}
	l.fold().wantTruth(l.model)
	l.kept()
	storetest.Check(t, l.store)
	if err := l.store.Close(); err != nil {
		t.Error(err)
	}
	if t.Failed() {
		t.Logf("%s: %+v", l.from.describe(), l.plan)
	}
}
