package main

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"cistern/filter"
	wire "cistern/ingest/frame"
	"cistern/ingest/repo"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"
)

// refilterModel is a model whose filter changes while it runs.
type refilterModel struct {
	*model
	fs    *storetest.CrashFS
	first map[string]bool // accounts older than the first filter
	asked map[string]bool // by the operator, at any time
	shaky map[string]bool // may have been dropped: a new reader does not see all their events
	since int64           // seq up to which the first stream was applied when the filter was changed last
}

// TestRefilter changes filters at random, many times, while accounts commit, appear and disappear,
// and while Cistern stops, crashes and starts. When all is quiet, every repository holds exactly
// the records that the filter in force selects, exactly the selected repositories are followed, and
// the state of a consumer of the log is the same.
//
// Variables are those of TestModel; there are 30 seeds without them.
func TestRefilter(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	t.Parallel()
	first := testNumber(t, "CISTERNTEST_SEED", 1)
	for seed := first; seed < first+testNumber(t, "CISTERNTEST_SEEDS", storetest.Seeds(30)); seed++ {
		t.Run(fmt.Sprintf("CISTERNTEST_SEED=%d", seed), func(t *testing.T) {
			t.Parallel()
			newRefilterModel(t, seed).play()
		})
	}
}

func newRefilterModel(t *testing.T, seed uint64) *refilterModel {
	rng := rand.New(rand.NewPCG(seed, 7))
	m := &model{t: t, rng: rng, seed: seed, every: 200 * time.Millisecond, before: map[string]bool{}}
	m.plan = plan{relays: 1 + rng.IntN(2), steps: 20 + rng.IntN(60)}
	return &refilterModel{model: m, fs: storetest.NewCrashFS(), first: map[string]bool{}, asked: map[string]bool{}, shaky: map[string]bool{}}
}

func (m *refilterModel) play() {
	m.net = startNetwork(m.t, simnet.Options{Seed: m.seed, Clutter: true, Hosts: 2, Repos: 4 + m.rng.IntN(6), Relays: 2, Manners: simnet.Indigo,
		RecordsMedian: 1 + m.rng.IntN(40), RecordsMax: 200, OddKeys: m.rng.IntN(2), Empty: m.rng.IntN(2)})
	history := m.net.History(m.seed, simnet.Weights{Commit: 70, Redundant: 8, Empty: 3, Burst: 4, Status: 6, Handle: 2, Key: 2, Delete: 2, New: 4, Sync: 2})
	for _, did := range m.net.DIDs() {
		m.first[did] = true
	}
	m.config = m.random()
	m.note(m.config)
	m.reopen(m.fs)
	m.connected()
	m.announced()
	for _, h := range m.net.Hosts() {
		if m.rng.IntN(2) == 0 {
			h.Inject(simnet.Fault{Kind: simnet.Latency, Delay: time.Duration(1+m.rng.IntN(10)) * time.Millisecond})
		}
		if m.rng.IntN(3) == 0 {
			h.Inject(simnet.Fault{Kind: simnet.ServerError, Count: 1 + m.rng.IntN(3)})
		}
	}
	for range m.plan.steps {
		history.Step()
		if m.rng.IntN(3) == 0 {
			time.Sleep(time.Duration(m.rng.IntN(6000)) * time.Microsecond)
		}
		m.perhaps()
	}
	for _, h := range m.net.Hosts() {
		h.ClearFaults()
	}
	m.net.Settle()
	m.settle()
	m.stop() // the log holds what is durable
	if !m.t.Failed() {
		m.wantLog()
	}
}

// announced makes accounts send events until every source has a cursor. A connection that breaks
// before then misses the events sent meanwhile, and a crash may lose the first ones.
func (m *refilterModel) announced() {
	lacks := func(src store.Source) bool {
		_, ok, err := m.store.Cursor(src.URL)
		return !ok || err != nil
	}
	for range 30 {
		if !slices.ContainsFunc(m.sources(), lacks) {
			return
		}
		for _, a := range m.net.Accounts() {
			a.AnnounceIdentity()
		}
		for until := time.Now().Add(time.Second); time.Now().Before(until) && slices.ContainsFunc(m.sources(), lacks); {
			time.Sleep(time.Millisecond)
		}
	}
	m.begun()
}

// reopen opens a store on a file system, a new one or the one that was there.
func (m *refilterModel) reopen(fs *storetest.CrashFS) {
	m.fs = fs
	m.store = storetest.Open(m.t, store.Options{FS: fs, GroupAge: 3 * time.Millisecond})
	m.start()
	stop := &m.stop
	m.t.Cleanup(func() { (*stop)() })
}

// perhaps changes the filter, adds an account by name, or ends this life.
func (m *refilterModel) perhaps() {
	switch m.rng.IntN(20) {
	case 0, 1, 2:
		config := m.store.Filter().Config()
		if m.rng.IntN(3) == 0 {
			config = m.random()
		} else {
			m.edit(&config)
		}
		m.note(config)
		if _, err := m.store.SetFilter(config); err != nil {
			m.t.Fatal(err)
		}
		m.wake()
	case 3:
		m.ask(m.account().DID())
	case 4:
		m.stop()
		m.start()
	case 5:
		clone := m.fs.Clone(m.rng, m.rng.IntN(101))
		m.stop()
		m.reopen(clone)
	}
}

func (m *refilterModel) account() *simnet.Account {
	accounts := m.net.Accounts()
	return accounts[m.rng.IntN(len(accounts))]
}

// ask adds a repository by name, as PUT /repos does.
func (m *refilterModel) ask(did string) {
	defer m.wake()
	defer m.store.Lock(did)()
	row, err := m.store.RepoOrNew(did)
	if err != nil {
		m.t.Fatal(err)
	}
	if m.store.Filter().Excluded(did) || row.Tracked == store.ByOperator {
		return
	}
	b := m.store.NewBatch()
	if row.Tracked == store.Untracked {
		row.State, row.Pending.Priority = store.StatePending, store.PriorityOperator
	}
	row.Tracked = store.ByOperator
	b.PutRepo(&row)
	if err := b.CommitSync(); err != nil {
		m.t.Fatal(err)
	}
	m.asked[did] = true
}

var patternPool = []string{"app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.feed.repost", "app.bsky.graph.follow", "app.bsky.actor.profile",
	"app.bsky.feed.*", "app.bsky.graph.*", "app.bsky.*", "com.example.sim.note", "com.example.none"}

func (m *refilterModel) patterns(most int) (out []string) {
	for range m.rng.IntN(most + 1) {
		out = append(out, patternPool[m.rng.IntN(len(patternPool))])
	}
	return out
}

func (m *refilterModel) random() filter.Config {
	c := filter.Config{Mode: filter.ModeFilter, Store: filter.StoreWanted, Signals: m.patterns(2), Collections: m.patterns(3)}
	if m.rng.IntN(2) == 0 {
		c.Mode = filter.ModeFull
	}
	if m.rng.IntN(3) == 0 {
		c.Store = filter.StoreAll
	}
	for _, a := range m.net.Accounts() {
		if m.rng.IntN(8) == 0 {
			c.Excludes = append(c.Excludes, a.DID())
		}
	}
	return c
}

// edit changes one property of the filter.
func (m *refilterModel) edit(c *filter.Config) {
	other := m.random()
	switch m.rng.IntN(6) {
	case 0:
		c.Mode = other.Mode
	case 1:
		c.Store = other.Store
	case 2:
		c.Signals = other.Signals
	case 3:
		c.Excludes = other.Excludes
	default:
		c.Collections = other.Collections
	}
}

// note records the accounts that a filter may drop.
func (m *refilterModel) note(c filter.Config) {
	m.since = 0
	if m.store != nil {
		// Not the head: what the store has not applied yet is judged as it was.
		cursor, _, err := m.store.Cursor(m.sources()[0].URL)
		if err != nil {
			m.t.Fatal(err)
		}
		m.since = cursor
	}
	for _, did := range c.Excludes {
		m.shaky[did] = true
	}
	if c.Mode == filter.ModeFull {
		return
	}
	for _, a := range m.net.Accounts() {
		if !m.asked[a.DID()] {
			m.shaky[a.DID()] = true
		}
	}
}

// settle waits until the store agrees with the filter and the network.
func (m *refilterModel) settle() {
	m.t.Helper()
	m.announced()
	for p := (patience{limit: time.Minute}); ; time.Sleep(5 * time.Millisecond) {
		err := m.equal()
		if err == nil {
			return
		}
		if p.ends(m.progress()) {
			for _, did := range m.net.DIDs() {
				row, _ := m.store.Repo(did)
				m.t.Logf("%+v in flight %t", row, m.fetch.InFlight(did))
			}
			m.t.Fatalf("%+v, filter %d %+v: the store does not come to what the filter says: %v\ncounts %v\n%s", m.plan, m.store.Filter().Version, m.store.Filter().Config(), err, m.store.Counts(), m.where())
		}
	}
}

func (m *refilterModel) equal() error {
	if cursor, running, err := m.fetch.Refilter(); running || err != nil {
		return fmt.Errorf("the pass is at %q, %w", cursor, err)
	}
	for i, src := range m.sources() { // an earlier commit may have an account followed for a while
		cursor, _, err := m.store.Cursor(src.URL)
		if head := m.streams()[i].Head(); cursor != head {
			return fmt.Errorf("%s is followed up to %d, %w, of %d", src.URL, cursor, err, head)
		}
	}
	f := m.store.Filter()
	var errs []error
	var repos, records int64
	for _, a := range m.net.Accounts() {
		row, err := m.store.Repo(a.DID())
		known := err == nil
		if !known && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if known {
			repos++
			records += row.Records
		}
		if err := m.equalRepo(f, a.Truth(), &row, known); err != nil {
			errs = append(errs, fmt.Errorf("%s (%s, %s): %w", a.DID(), row.State, row.Tracked, err))
		}
	}
	c := m.store.Counts()
	if c["repos"] != repos || c["records"] != records || c["pending"]+c["draining"]+c["buffered"] != 0 {
		errs = append(errs, fmt.Errorf("counts %v, want %d repos and %d records", c, repos, records))
	}
	return errors.Join(errs...)
}

// equalRepo compares whether a repository is followed, and its records.
func (m *refilterModel) equalRepo(f store.FilterVersion, truth simnet.Truth, row *store.Repo, known bool) error {
	named := !f.Full() && len(f.Signals()) == 0 // by a pass over the listing
	signal := false
	for path := range truth.Records {
		collection, _, ok := repo.SplitPath([]byte(path))
		signal = signal || ok && f.Signal(collection)
	}
	active := truth.Status == simnet.Active
	switch {
	case f.Excluded(truth.DID):
		if known {
			return errors.New("excluded, and there")
		}
		return nil
	case !known && active && (f.Full() || signal || named || m.asked[truth.DID] && !m.shaky[truth.DID]):
		return fmt.Errorf("not there, with full %v, signal %v, named %v, asked for %v", f.Full(), signal, named, m.asked[truth.DID])
	case !known:
		return nil
	case active && row.Tracked != store.ByOperator && !f.Full() && !signal && !m.signalled(f, truth.DID):
		return errors.New("there without a reason")
	}
	if !active {
		if !row.Status.Hidden() {
			return fmt.Errorf("is %s, want %s", row.Status, truth.Status)
		}
		return m.within(f, row)
	}
	if row.State != store.StateSynced || row.Rev != truth.Rev || row.Data != truth.Data || row.Lacks || row.Sweep || row.Torn {
		return fmt.Errorf("%s at %s (lacks %v, sweep %v), want %s", row.State, row.Rev, row.Lacks, row.Sweep, truth.Rev)
	}
	return m.exactly(f, truth, row)
}

// signalled reports whether an account may have held a record of a signal since the last change of
// the filter. Such an account is followed until the next change.
func (m *refilterModel) signalled(f store.FilterVersion, did string) bool {
	var e wire.Frame
	for _, message := range m.streams()[0].Messages(m.since) {
		if e.Decode(message) != nil || e.DID != did {
			continue
		}
		if e.Kind == wire.KindSync || e.TooBig {
			return true
		}
		for _, op := range e.Ops {
			if collection, _, ok := repo.SplitPath(op.Path); ok && f.Signal(collection) {
				return true
			}
		}
	}
	return false
}

// within checks that an account that is not active shows only records that the filter selects.
func (m *refilterModel) within(f store.FilterVersion, row *store.Repo) error {
	if row.Ordinal == 0 {
		return nil
	}
	shown, _, err := m.held(row)
	for path := range shown {
		if collection, _, _ := strings.Cut(path, "/"); !f.Wants([]byte(collection)) {
			return fmt.Errorf("%s is shown", path)
		}
	}
	return err
}

// held returns the records of a repository that are shown, and those that are kept hidden.
func (m *refilterModel) held(row *store.Repo) (shown, kept map[string]repo.CID, err error) {
	shown, kept = map[string]repo.CID{}, map[string]repo.CID{}
	if row.Ordinal == 0 {
		return shown, kept, nil
	}
	rows, err := m.store.Rows(row.Ordinal)
	if err != nil {
		return nil, nil, err
	}
	for rows.Next() {
		r := rows.Row()
		if r.Shelved || r.Hidden {
			kept[string(r.Path)] = r.CID
			continue
		}
		shown[string(r.Path)] = r.CID
	}
	return shown, kept, rows.Close()
}

// wanted returns the records that a filter shows, and those that it keeps hidden.
func wanted(f store.FilterVersion, truth simnet.Truth) (shown, kept map[string]repo.CID) {
	shown, kept = map[string]repo.CID{}, map[string]repo.CID{}
	for path, cid := range truth.Records {
		collection, _, ok := repo.SplitPath([]byte(path))
		switch {
		case ok && f.Wants(collection):
			shown[path] = cid
		case f.StoresAll() || f.WantsAll():
			kept[path] = cid
		}
	}
	return shown, kept
}

func (m *refilterModel) exactly(f store.FilterVersion, truth simnet.Truth, row *store.Repo) error {
	shown, kept, err := m.held(row)
	if err != nil {
		return err
	}
	wantShown, wantKept := wanted(f, truth)
	if !maps.Equal(shown, wantShown) {
		return fmt.Errorf("shows %d, want %d:%s", len(shown), len(wantShown), mapDiff(shown, wantShown))
	}
	if !maps.Equal(kept, wantKept) {
		return fmt.Errorf("keeps %d, want %d:%s", len(kept), len(wantKept), mapDiff(kept, wantKept))
	}
	if row.Records+row.Shelved != int64(len(shown)+len(kept)) || row.Records-int64(row.Hidden) != int64(len(shown)) {
		return fmt.Errorf("row counts %d, %d of them hidden, and %d shelved; there are %d and %d", row.Records, row.Hidden, row.Shelved, len(shown), len(kept))
	}
	return nil
}

// wantLog folds the log, in which each change follows from those before it. Deletions of dropped
// records are the exception: a consumer that starts after the drop has not seen their creation.
func (m *refilterModel) wantLog() {
	l := newLogged()
	trail := map[string][]string{}
	readWholeLog(m.t, m.store, func(e *store.Event) error {
		if e.Kind == store.KindRecord && e.Action == store.Delete && (m.shaky[e.DID] || !m.first[e.DID]) {
			if _, told := l.records[e.DID][string(e.Collection)+"/"+string(e.Rkey)]; !told {
				return nil
			}
		}
		trail[e.DID] = append(trail[e.DID], fmt.Sprintf("%d: kind %d, action %s, rev %s, live %v, status %s, %s/%s", e.ID, e.Kind, e.Action, e.Rev, e.Live, e.Status, e.Collection, e.Rkey))
		if err := l.apply(e); err != nil {
			return fmt.Errorf("%w, after\n%s", err, strings.Join(trail[e.DID], "\n"))
		}
		return nil
	})
	m.t.Logf("head %d, tail %d, counts %v, filter %d", m.store.Head(), m.store.Tail(), m.store.Counts(), m.store.Filter().Version)
	l.wantRepos(m.model)
	f := m.store.Filter()
	for _, a := range m.net.Accounts() {
		truth := a.Truth()
		want := map[string]repo.CID{}
		if _, err := m.store.Repo(truth.DID); err == nil && truth.Status == simnet.Active {
			want, _ = wanted(f, truth)
		}
		if got := l.records[truth.DID]; !maps.Equal(got, want) {
			row, _ := m.store.Repo(truth.DID)
			m.t.Errorf("%s (%s, filter %+v): the log leaves %d records, want %d:%s, row %+v, after\n%s", truth.DID, truth.Status, f.Config(), len(got), len(want),
				mapDiff(got, want), row, strings.Join(trail[truth.DID], "\n"))
		}
	}
}
