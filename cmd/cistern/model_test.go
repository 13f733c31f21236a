package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/backfill/discover"
	"cistern/filter"
	"cistern/ingest"
	"cistern/ingest/firehose"
	wire "cistern/ingest/frame"
	"cistern/ingest/identity"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"

	"golang.org/x/sync/errgroup"
)

// model is a seeded network and a Cistern that follows it: the boxes of the daemon without its
// listeners, over a store in memory.
type model struct {
	repeats  bool // sources begin behind a crash, and repeat events that rows hold
	t        *testing.T
	seed     uint64
	rng      *rand.Rand
	net      *simnet.Network
	plan     plan
	store    *store.Store
	stop     func()
	firehose *firehose.Sources
	live     *ingest.Runner
	fetch    *backfill.Runner
	find     *discover.Runner

	config filter.Config   // of a new store; full without a mode
	every  time.Duration   // between two passes over a listing; 0: a day
	before map[string]bool // accounts that were hidden before the start: no event shows it

	consumer *consumer // of an ephemeral store; nil: the store keeps records
}

// plan is what a seed decides about a run.
type plan struct {
	relays int  // how many are followed; 0: the hosts themselves
	late   bool // the firehose is followed from the middle of the history on
	lossy  bool // faults hide events, which no later one of the same account may show
	steps  int
	stops  int // how often the boxes are stopped and started again
}

func (m *model) open() {
	o := store.Options{GroupAge: 3 * time.Millisecond}
	if m.consumer != nil {
		m.consumer.options(&o)
	}
	m.store = storetest.Open(m.t, o)
	m.start()
	m.t.Cleanup(func() { m.stop() })
}

// start runs new boxes over the same store.
func (m *model) start() {
	t := m.t
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("CISTERNTEST_LOG") != "" {
		log = newLogger(os.Stderr, slog.LevelDebug)
	}
	dir, err := identity.New(identity.Options{PLC: []string{m.net.PLC()}, AllowPrivate: true})
	if err != nil {
		t.Fatal(err)
	}
	if m.store.Filter().Version == 0 {
		m.config.Mode = cmp.Or(m.config.Mode, filter.ModeFull)
		if _, err := m.store.SetFilter(m.config); err != nil {
			t.Fatal(err)
		}
	}
	fetch, err := backfill.New(backfill.Options{Store: m.store, Directory: dir, AllowPrivate: true, SpoolDir: t.TempDir(), Logger: log,
		RetryBase: 20 * time.Millisecond, RetryMax: 100 * time.Millisecond, Drain: func(did string) { m.live.Drain(did) },
		Follows: func(source uint32) bool { return m.firehose.Follows(source) }})
	if err != nil {
		t.Fatal(err)
	}
	m.fetch = fetch
	m.find, err = discover.New(discover.Options{Store: m.store, Hosts: fetch.Hosts(), Directory: dir, Enqueued: fetch.Enqueued, AllowPrivate: true,
		Crawl: []discover.Source{{Kind: discover.SourceRepos, URL: m.net.Relay()}}, CrawlEvery: m.every, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	m.firehose, err = firehose.New(firehose.Options{Store: m.store, AllowPrivate: true, Wake: m.wake, Logger: log,
		Sources: m.sources(), RetryBase: 5 * time.Millisecond, RetryMax: 50 * time.Millisecond,
		ReconcileEvery: 20 * time.Millisecond, SilentAfter: 300 * time.Millisecond, ReadTimeout: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	m.live, err = ingest.New(ingest.Options{Store: m.store, Directory: dir, Firehose: m.firehose, Wake: m.wake, Logger: log,
		Shards: 1 + m.rng.IntN(4), RefetchBase: refetchBase, RefuseFor: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	run := func(ctx context.Context) error {
		awaitSources(ctx, m.firehose)
		return fetch.Run(ctx)
	}
	var stops []func()
	for _, run := range []func(context.Context) error{m.store.Run, run, m.find.Run, m.live.Run} {
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		var g errgroup.Group
		g.Go(func() error { return run(ctx) })
		stops = append(stops, func() {
			cancel()
			if err := g.Wait(); err != nil {
				t.Errorf("a box ended: %v", err)
			}
		})
	}
	m.stop = func() {
		for _, stop := range slices.Backward(stops) {
			stop()
		}
		m.stop = func() {}
	}
}

// wake does what the daemon does when the filter was changed or rows were enqueued.
func (m *model) wake() {
	m.fetch.Wake()
	m.find.Wake()
}

func (m *model) sources() []store.Source {
	var out []store.Source
	add := func(url string, pds bool) {
		src, err := firehose.ParseSource(url, pds)
		if err != nil {
			m.t.Fatal(err)
		}
		out = append(out, src)
	}
	for _, r := range m.net.Relays()[:m.plan.relays] {
		add(r.URL(), false)
	}
	if m.plan.relays == 0 {
		for _, h := range m.net.Hosts() {
			add(h.URL(), true)
		}
	}
	return out
}

// settle waits until the store equals the network, and reports the difference if it does not.
func (m *model) settle() {
	m.t.Helper()
	p := patience{limit: 30 * time.Second}
	for {
		err := errors.Join(m.read(), m.equal())
		if err == nil {
			if m.consumer == nil {
				checkExports(m.t, m.store, m.net)
			}
			return
		}
		if p.ends(m.progress()) {
			for _, did := range m.net.DIDs() {
				if row, _ := m.store.Repo(did); row.State != store.StateSynced {
					m.t.Logf("%+v in flight %t of %d, fetching %t", row, m.fetch.InFlight(did), m.fetch.Syncing(), m.store.Fetching(did))
				}
			}
			m.logFrames()
			m.t.Fatalf("%+v: the store does not come to equal the network: %v\ncounts %v\n%s", m.plan, err, m.store.Counts(), m.where())
		}
		time.Sleep(3 * time.Millisecond)
	}
}

// read returns nil if every event that was read is handled, and, behind a crash, if every source is
// read to its end: a source repeats there events that were applied, and while it does a row becomes
// older again. An event that waits at the stop stays behind the cursor, and those before it, of the
// same account, may be applied.
func (m *model) read() error {
	if _, events := m.firehose.InFlight(); events > 0 {
		return fmt.Errorf("%d events are in flight", events)
	}
	if !m.repeats {
		return nil
	}
	at := map[string]int64{}
	for _, src := range m.firehose.Status() {
		at[src.URL] = src.Seq
	}
	for i, named := range m.sources() {
		if head := m.streams()[i].Head(); at[named.URL] != head {
			return fmt.Errorf("%s is read up to %d of %d", named.URL, at[named.URL], head)
		}
	}
	return nil
}

// logFrames logs the messages of the streams about accounts whose repositories differ from the
// network.
func (m *model) logFrames() {
	for _, a := range m.net.Accounts() {
		if _, err := m.equalRepo(a, a.Truth()); err == nil {
			continue
		}
		for _, h := range m.streams() {
			for _, message := range h.Messages(0) {
				var f wire.Frame
				if err := f.Decode(message); err == nil && f.DID == a.DID() {
					m.t.Logf("%s seq %d: %s of %s, rev %q since %q, active %t %s", h.URL(), f.Seq, f.Kind, f.DID, f.Rev, f.Since, f.Active, f.Status)
				}
			}
		}
	}
}

// progress returns a text that changes when work was done, and while work is due later. It leaves
// out what changes without progress: times, and attempts that fail, such as connections and
// fetches.
func (m *model) progress() string {
	var b strings.Builder
	fmt.Fprintln(&b, m.store.Counts(), m.store.Head())
	for _, src := range m.firehose.Status() {
		fmt.Fprintln(&b, src.URL, src.Cursor, src.Seq)
	}
	for _, did := range m.net.DIDs() {
		if row, err := m.store.Repo(did); err == nil && time.Now().Before(heldUntil(&row)) {
			fmt.Fprintln(&b, did, "is held back still", time.Now().Unix())
		}
	}
	return b.String()
}

// refetchBase is the first delay of a repository that breaks, or returns, again within an hour.
const refetchBase = 20 * time.Millisecond

// heldUntil returns the latest time at which a repository that broke or returned too often may be
// fetched: the delay doubles each time.
func heldUntil(row *store.Repo) time.Time {
	if row.Breaks < 2 {
		return time.Time{}
	}
	return time.Unix(row.Broken, 0).Add(2*time.Second + min(refetchBase<<min(row.Breaks-2, 30), time.Hour))
}

// where reports how far each stream was read.
func (m *model) where() string {
	var b strings.Builder
	for i, src := range m.firehose.Status() {
		fmt.Fprintf(&b, "%s: %+v\n", src.URL, src)
		fmt.Fprintf(&b, "   stream %s at %d\n", m.streams()[i].URL(), m.streams()[i].Head())
	}
	return b.String()
}

// equal compares rows and records with the network.
func (m *model) equal() error {
	var errs []error
	total, records := 0, 0
	for _, a := range m.net.Accounts() {
		truth := a.Truth()
		if _, err := m.store.Repo(truth.DID); m.before[truth.DID] && truth.Status != simnet.Active && errors.Is(err, store.ErrNotFound) {
			continue
		}
		total++
		n, err := m.equalRepo(a, truth)
		records += n
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", truth.DID, err))
		}
	}
	c := m.store.Counts()
	if m.consumer != nil {
		records = int(c["records"]) // a part
	}
	if c["repos"] != int64(total) || c["records"] != int64(records) || c["buffered"] != 0 || c["draining"] != 0 || c["pending"] != 0 {
		errs = append(errs, fmt.Errorf("counts %v, want %d repos and %d records", c, total, records))
	}
	return errors.Join(errs...)
}

var statuses = map[simnet.Status]store.Status{simnet.Active: store.StatusActive, simnet.Deactivated: store.StatusDeactivated,
	simnet.Takendown: store.StatusTakendown, simnet.Suspended: store.StatusSuspended, simnet.Deleted: store.StatusDeleted}

func (m *model) equalRepo(a *simnet.Account, truth simnet.Truth) (records int, err error) {
	row, err := m.store.Repo(truth.DID)
	if err != nil {
		return 0, err
	}
	// An account that was deleted before Cistern came, and of which a relay repeats a commit: its host
	// answers RepoNotFound, and no source tells of the deletion any more.
	unknowable := m.before[truth.DID] && truth.Status == simnet.Deleted && row.Status == store.StatusNotFound && row.Ordinal == 0
	if row.Status != statuses[truth.Status] && !unknowable {
		return 0, fmt.Errorf("is %s, want %s (%s, %+v)", row.Status, truth.Status, row.State, row.Retry)
	}
	if truth.Status == simnet.Deleted {
		if row.Ordinal != 0 || row.Records != 0 {
			return int(row.Records), fmt.Errorf("deleted, and holds %d records", row.Records)
		}
		return 0, nil
	}
	if truth.Status != simnet.Active {
		return int(row.Records), nil // what was held is kept
	}
	if row.Handle != truth.Handle || row.PDS != truth.Host || row.Key != truth.Key {
		return 0, fmt.Errorf("is %s at %s with %s, want %s at %s with %s", row.Handle, row.PDS, row.Key, truth.Handle, truth.Host, truth.Key)
	}
	err = wantRepo(m.store, a)
	if m.consumer != nil && errors.Is(err, errFewer) {
		err = nil
	}
	return len(truth.Records), err
}

// TestModel plays seeded histories with faults against Cistern. When the network has become quiet,
// the store equals it, and so does the state of a consumer of the log. Each change in the log
// follows from those before it, without a gap or a repetition.
//
// CISTERNTEST_SEEDS is the number of seeds (200; make soak has more), CISTERNTEST_SEED the first of them.
func TestModel(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	t.Parallel()
	first := testNumber(t, "CISTERNTEST_SEED", 1)
	for seed := first; seed < first+testNumber(t, "CISTERNTEST_SEEDS", storetest.Seeds(200)); seed++ {
		t.Run(fmt.Sprintf("CISTERNTEST_SEED=%d", seed), func(t *testing.T) {
			t.Parallel()
			newModel(t, seed).play()
		})
	}
}

func newModel(t *testing.T, seed uint64) *model {
	rng := rand.New(rand.NewPCG(seed, 0))
	m := &model{t: t, rng: rng, seed: seed}
	m.plan = plan{relays: rng.IntN(3), late: rng.IntN(4) == 0, lossy: rng.IntN(2) == 0, steps: 20 + rng.IntN(60)}
	if rng.IntN(3) == 0 {
		m.plan.stops = 1 + rng.IntN(3)
	}
	return m
}

func (m *model) play() {
	t := m.t
	m.net = startNetwork(t, simnet.Options{Seed: m.seed, Clutter: true, Hosts: 2 + m.rng.IntN(2), Repos: 3 + m.rng.IntN(5), Relays: 2, Manners: simnet.Indigo,
		RecordsMedian: 1 + m.rng.IntN(12), RecordsMax: 60, OddKeys: m.rng.IntN(2), Empty: m.rng.IntN(2)})
	history := m.net.History(m.seed, simnet.Weights{})
	if m.plan.late {
		history.Run(m.plan.steps / 2)
		m.undecide() // an event that a relay always withholds cannot be known
	}
	m.before = map[string]bool{}
	for _, a := range m.net.Accounts() {
		m.before[a.DID()] = a.Status() != simnet.Active
	}
	m.open()
	if m.exact() {
		m.connected()
		for _, a := range m.net.Accounts() { // so that every source has a cursor
			a.AnnounceIdentity()
		}
		m.begun()
	}
	m.injectFaults()
	for i := range m.plan.steps {
		history.Step()
		if m.consumer != nil && m.consumer.rng.IntN(3) == 0 {
			m.consumer.prune(m)
		}
		if m.rng.IntN(3) == 0 {
			time.Sleep(time.Duration(m.rng.IntN(3000)) * time.Microsecond)
		}
		if m.plan.stops > 0 && i%(m.plan.steps/m.plan.stops+1) == 7 {
			m.stop()
			history.Run(m.rng.IntN(4))
			m.start()
		}
		if m.rng.IntN(40) == 0 {
			m.streams()[m.rng.IntN(len(m.streams()))].DropConnections()
		}
	}
	m.quiet()
	m.settle()
	if t.Failed() {
		return
	}
	m.stop() // the log holds what is durable
	if m.consumer != nil {
		m.consumer.end(m)
		return
	}
	m.fold().wantTruth(m)
}

// exact reports whether the streams send every change after Cistern has connected, so that nothing
// has to be announced again at the end.
func (m *model) exact() bool { return m.plan.relays > 0 && !m.plan.lossy }

// connected waits until every stream is followed: one without a cursor starts at its newest
// message.
func (m *model) connected() {
	for p := (patience{limit: 30 * time.Second}); ; time.Sleep(time.Millisecond) {
		missing := slices.DeleteFunc(slices.Clone(m.streams()), func(h *simnet.Host) bool { return h.Connections() > 0 })
		if len(missing) == 0 {
			return
		}
		if p.ends(len(missing), m.progress()) {
			m.t.Fatalf("%s is not followed: %+v", missing[0].URL(), m.firehose.Status())
		}
	}
}

// begun waits until every source has a durable cursor.
func (m *model) begun() {
	for p := (patience{limit: 30 * time.Second}); ; time.Sleep(time.Millisecond) {
		begun := true
		for _, src := range m.sources() {
			_, ok, err := m.store.Cursor(src.URL)
			begun = begun && ok && err == nil
		}
		if begun {
			return
		}
		if p.ends(m.progress()) {
			m.t.Fatalf("no cursor: %+v", m.firehose.Status())
		}
	}
}

// streams returns the hosts that are followed.
func (m *model) streams() []*simnet.Host {
	if m.plan.relays == 0 {
		return m.net.Hosts()
	}
	return m.net.Relays()[:m.plan.relays]
}

// harmless faults hide nothing that the same stream does not send later.
var harmless = []simnet.StreamFault{
	{Kind: simnet.StreamDuplicate}, {Kind: simnet.StreamReorder, Ahead: 3}, {Kind: simnet.StreamSeqRegression},
	{Kind: simnet.StreamGarbage}, {Kind: simnet.StreamUnknownType}, {Kind: simnet.StreamOversized}, {Kind: simnet.StreamManyOps}, {Kind: simnet.StreamWrongHost},
	{Kind: simnet.StreamHidden}, {Kind: simnet.StreamForgedExtra}, {Kind: simnet.StreamLyingSince}, {Kind: simnet.StreamLyingSince, Bare: true},
	{Kind: simnet.StreamForgedSignature, Extra: true}, {Kind: simnet.StreamForgedRecord, Extra: true},
	{Kind: simnet.StreamMissingRecord, Extra: true}, {Kind: simnet.StreamWrongDID, Extra: true}, {Kind: simnet.StreamFutureRev, Extra: true},
	{Kind: simnet.StreamTooBig}, {Kind: simnet.StreamSyncInstead}, {Kind: simnet.StreamNoPrevData}, {Kind: simnet.StreamNoPrevData, Bare: true},
	{Kind: simnet.StreamSilent, After: 9}, {Kind: simnet.StreamDead, After: 5}, {Kind: simnet.StreamDisconnect, After: 11},
	{Kind: simnet.StreamError}, {Kind: simnet.StreamRefused}, {Kind: simnet.StreamLag, Delay: 4 * time.Millisecond},
}

// lossy faults hide events or replace them by others.
var lossy = []simnet.StreamFault{
	{Kind: simnet.StreamGap}, {Kind: simnet.StreamForgedSignature}, {Kind: simnet.StreamForgedRecord},
	{Kind: simnet.StreamMissingRecord}, {Kind: simnet.StreamWrongDID}, {Kind: simnet.StreamFutureRev},
	{Kind: simnet.StreamError, Error: "FutureCursor"},
}

func (m *model) injectFaults() {
	kinds := harmless
	if m.plan.lossy {
		kinds = append(slices.Clone(kinds), lossy...)
	}
	for _, h := range m.streams() {
		for range m.rng.IntN(4) {
			f := kinds[m.rng.IntN(len(kinds))]
			f.Count = 1 + m.rng.IntN(4)
			f.After += m.rng.IntN(10)
			h.InjectStream(f)
		}
		if m.plan.lossy && m.rng.IntN(4) == 0 {
			h.SetWindow(3 + m.rng.IntN(10)) // a reconnection has missed something
		}
	}
	for _, h := range m.net.Hosts() {
		if m.rng.IntN(2) == 0 { // commits arrive while a copy is being sent
			h.Inject(simnet.Fault{Kind: simnet.Latency, Delay: time.Duration(1+m.rng.IntN(15)) * time.Millisecond})
		}
		if m.rng.IntN(4) == 0 {
			h.Inject(simnet.Fault{Kind: simnet.ServerError, Count: 1 + m.rng.IntN(3)})
		}
		if m.rng.IntN(4) == 0 { // it does not find what it holds
			h.Inject(simnet.Fault{Kind: simnet.Unavailable, Endpoint: "*", Count: 1 + m.rng.IntN(2)})
		}
	}
}

// undecide ends what relays have decided about accounts whatever their hosts say.
func (m *model) undecide() {
	for _, h := range m.net.Relays() {
		for _, a := range h.Decided() {
			h.Decide(a, simnet.Active)
		}
	}
}

// quiet ends all faults. What was lost is made up for by one honest word of each account.
func (m *model) quiet() {
	for _, h := range append(m.net.Hosts(), m.net.Relays()...) {
		h.ClearFaults()
		h.ClearStreamFaults()
		h.SetWindow(1 << 20)
		h.DropConnections() // some were silent
	}
	m.net.Settle()
	m.undecide()
	if m.exact() {
		return
	}
	m.connected()
	for _, a := range m.net.Accounts() {
		status := a.Status()
		a.Announce(status == simnet.Active, status)
		if status == simnet.Active {
			a.AnnounceIdentity()
			if _, err := a.Commit(); err != nil {
				m.t.Error(err)
			}
		}
	}
}
