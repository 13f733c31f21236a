package ingest_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"cistern/filter"
	"cistern/ingest"
	"cistern/ingest/firehose"
	"cistern/ingest/identity"
	"cistern/ingest/repo"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

// world is a network, a store that begins with copies of it, and a Runner fed with messages by
// hand.
type world struct {
	t       testing.TB
	net     *simnet.Network
	store   *store.Store
	dir     *directory
	hose    firehose.Options
	opts    ingest.Options
	reg     *prometheus.Registry
	r       *ingest.Runner
	feed    *feed
	sources *firehose.Sources
	sent    int64 // of the relay's messages
	stop    func()

	mu    sync.Mutex
	now   time.Time
	wakes int
}

func newWorld(t testing.TB, change ...func(*world)) *world {
	t.Helper()
	net, err := simnet.New(simnet.Options{Seed: 7, Repos: 4, Hosts: 2, RecordsMedian: 12})
	if err != nil {
		t.Fatal(err)
	}
	if err := net.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = net.Close() })
	w := &world{t: t, net: net, now: time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)}
	w.dir = &directory{net: net, cache: map[string]identity.Identity{}, asked: map[string]int{}}
	w.reg = prometheus.NewRegistry()
	w.opts = ingest.Options{
		Directory: w.dir, Shards: 2, Registerer: w.reg, Now: w.clock,
		Wake: func() { w.mu.Lock(); defer w.mu.Unlock(); w.wakes++ },
	}
	for _, f := range change {
		f(w)
	}
	if w.opts.Store == nil {
		w.opts.Store = storetest.Open(t, store.Options{})
	}
	w.store = w.opts.Store
	w.start()
	return w
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(time.Microsecond)
	return w.now
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// start makes a Runner and runs it until stop or the end of the test.
func (w *world) start() {
	w.t.Helper()
	w.opts.Registerer = prometheus.NewRegistry()
	w.reg = w.opts.Registerer.(*prometheus.Registry)
	w.make()
	w.feed = w.newFeed("ws://relay.test", false)
	w.run()
}

// make makes a Runner and its sources.
func (w *world) make() {
	w.t.Helper()
	w.hose.Store, w.hose.Registerer, w.hose.Now, w.hose.Wake = w.store, w.reg, w.opts.Now, w.opts.Wake
	var err error
	if w.sources, err = firehose.New(w.hose); err != nil {
		w.t.Fatal(err)
	}
	w.opts.Firehose = w.sources
	if w.r, err = ingest.New(w.opts); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) run() {
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	ended := make(chan error, 1)
	r := w.r
	started := make(chan struct{})
	go func() { ended <- r.RunFeeds(ctx, func() { close(started) }, w.feed.Feed) }()
	<-started
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("run: %v", err)
		}
		if n := w.feed.Queued(); n != 0 {
			w.t.Errorf("%d bytes are still counted as queued", n)
		}
	})
	w.t.Cleanup(w.stop)
}

// hold makes the store hold a complete copy of an account, as backfill would.
func (w *world) hold(accounts ...*simnet.Account) {
	w.t.Helper()
	for _, a := range accounts {
		w.copy(a)
	}
}

func (w *world) copy(a *simnet.Account) {
	w.t.Helper()
	reach(w, a, store.StatePending)
	w.complete(a, a.Truth(), w.records(a))
}

// records are the current records of an account.
func (w *world) records(a *simnet.Account) map[string][]byte {
	m := map[string][]byte{}
	for _, p := range a.Paths() {
		m[p] = a.Record(p)
	}
	return m
}

// complete ends a fetch that found the truth and the records given.
func (w *world) complete(a *simnet.Account, truth simnet.Truth, records map[string][]byte) {
	w.t.Helper()
	row, err := w.store.Repo(a.DID())
	if err != nil {
		w.t.Fatal(err)
	}
	paths := slices.Sorted(maps.Keys(records))
	err = w.store.Import(w.t.Context(), store.Import{
		DID: a.DID(), Attempt: row.Attempt, Rev: truth.Rev, Filter: w.store.Filter().Selection, Blocks: len(paths),
		Walk: func(fn func(repo.Leaf) error) error {
			for i, p := range paths {
				l := repo.Leaf{Key: []byte(p), CID: repo.HashCID(records[p]), Block: i, Record: records[p], Valid: repo.ValidPath([]byte(p))}
				if err := fn(l); err != nil {
					return err
				}
			}
			return nil
		},
		Complete: func(b *store.Batch, r *store.Repo) {
			w.store.EndFetch(r.DID)
			b.Complete(r)
			r.Rev, r.Data = truth.Rev, truth.Data
			r.Commit = storetest.Commit(r.DID, truth.Rev, truth.Data)
			if car := a.CAR(); a.Truth().Rev == truth.Rev {
				root := simnet.Spans(car)[0]
				r.Commit = car[root.Data:root.End]
			}
			r.PDS, r.Handle, r.Key, r.Resolved = truth.Host, truth.Handle, truth.Key, w.clock().Unix()
		},
		Done: func(_ store.Repo, err error) {
			if err != nil {
				w.t.Error("import:", err)
			}
		},
	})
	if err == nil {
		err = w.store.FlushImports()
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// refetch has what a fetch brings written by hand: everything anew.
func (w *world) begin(a *simnet.Account) {
	defer w.store.Lock(a.DID())()
	w.store.BeginFetch(a.DID())
}

// pass gives the Runner everything the relay has said since, and waits until it is handled.
func (w *world) pass() {
	w.t.Helper()
	w.send()
	w.settle()
}

func (w *world) send() {
	w.t.Helper()
	w.sent = w.sendTo(w.feed, w.net.RelayHost(), w.sent)
}

func (w *world) sendTo(f *feed, h *simnet.Host, after int64) int64 {
	w.t.Helper()
	for _, m := range h.Messages(after) {
		if err := f.Send(w.t.Context(), m); err != nil {
			w.t.Fatal(err)
		}
	}
	return h.Head()
}

func (w *world) skip() { w.sent = w.net.RelayHost().Head() }

func (w *world) settle() {
	w.t.Helper()
	w.until("all events are done", func() bool { return w.feed.Idle() })
}

// until waits as long as events are committed: a busy machine slows everything, but stops nothing.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	head := w.store.Head()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if now := w.store.Head(); now != head {
			head, deadline = now, time.Now().Add(20*time.Second)
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("nothing was committed for 20 s, and not yet: %s", what)
		}
	}
}

func (w *world) row(a *simnet.Account) store.Repo {
	w.t.Helper()
	row, err := w.store.Repo(a.DID())
	if err != nil {
		w.t.Fatal(err)
	}
	return row
}

// equal says that the copy of an account is complete.
func (w *world) equal(a *simnet.Account) {
	w.t.Helper()
	truth, row := a.Truth(), w.row(a)
	if row.State != store.StateSynced || row.Rev != truth.Rev || row.Data != truth.Data || row.SeenRev != "" {
		w.t.Errorf("%s is %s at %s, want synced at %s (seen %q, retry %+v)", a.DID(), row.State, row.Rev, truth.Rev, row.SeenRev, row.Retry)
	}
	if diff := cmp.Diff(truth.Records, w.held(row)); diff != "" {
		w.t.Errorf("records of %s (-truth +held):\n%s", a.DID(), diff)
	}
	if int(row.Records) != len(truth.Records) {
		w.t.Errorf("%s counts %d records, want %d", a.DID(), row.Records, len(truth.Records))
	}
}

func (w *world) held(row store.Repo) map[string]repo.CID {
	w.t.Helper()
	m := map[string]repo.CID{}
	rows, err := w.store.Rows(row.Ordinal)
	if err != nil {
		w.t.Fatal(err)
	}
	for rows.Next() {
		m[string(rows.Row().Path)] = rows.Row().CID
	}
	if err := rows.Close(); err != nil {
		w.t.Fatal(err)
	}
	return m
}

// log is what the log says of live changes, accounts and identities, and how many records it lists
// otherwise.
func (w *world) log(a *simnet.Account) (lines []string, listed int) {
	w.t.Helper()
	for cursor := w.store.Tail(); ; {
		next, err := w.store.ReadLog(w.t.Context(), cursor, 1000, func(e *store.Event) error {
			switch {
			case e.DID != a.DID() || e.Kind == store.KindRepo:
			case e.Kind == store.KindAccount:
				lines = append(lines, "account "+e.Status.String())
			case e.Kind == store.KindIdentity:
				lines = append(lines, "identity "+e.Handle)
			case !e.Live:
				listed++
			default:
				lines = append(lines, fmt.Sprintf("%s %s/%s", e.Action, e.Collection, e.Rkey))
			}
			return nil
		})
		if err != nil {
			w.t.Fatal(err)
		}
		if next == cursor {
			return lines, listed
		}
		cursor = next
	}
}

func (w *world) logs(a *simnet.Account, want ...string) {
	w.t.Helper()
	w.until("the log is durable", func() bool { lines, _ := w.log(a); return len(lines) >= len(want) })
	lines, _ := w.log(a)
	if diff := cmp.Diff(want, lines); diff != "" {
		w.t.Errorf("log of %s (-want +got):\n%s", a.DID(), diff)
	}
}

// count is the value of a metric with the labels given in order of their names.
func (w *world) count(name string, labels ...string) int {
	w.t.Helper()
	families, err := w.reg.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "cistern_ingest_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			var values []string
			for _, l := range m.GetLabel() {
				values = append(values, l.GetValue())
			}
			if slices.Equal(values, labels) {
				return int(m.GetCounter().GetValue() + m.GetGauge().GetValue())
			}
		}
	}
	return 0
}

func (w *world) put(a *simnet.Account, path, text string) simnet.Commit {
	w.t.Helper()
	c, err := a.Put(path, simnet.Post(text))
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// follow puts a filter in force.
func (w *world) follow(mode string, signals ...string) {
	w.t.Helper()
	if _, err := w.store.SetFilter(filter.Config{Mode: mode, Signals: signals}); err != nil {
		w.t.Fatal(err)
	}
}

// directory answers with the truth of a network, unless it is told to wait or to fail.
type directory struct {
	net *simnet.Network

	mu    sync.Mutex
	cache map[string]identity.Identity
	asked map[string]int
	block map[string]chan struct{} // Resolve waits until it is closed
	fail  error
	meet  func() // called once, by the next Cached
}

func (d *directory) Resolve(ctx context.Context, did string) (identity.Identity, error) {
	d.mu.Lock()
	d.asked[did]++
	wait, err := d.block[did], d.fail
	d.mu.Unlock()
	if wait != nil {
		select {
		case <-wait:
		case <-ctx.Done():
			return identity.Identity{}, ctx.Err()
		}
	}
	if err != nil {
		return identity.Identity{}, err
	}
	a := d.net.Account(did)
	if a == nil {
		return identity.Identity{}, identity.ErrNotFound
	}
	truth := a.Truth()
	key, err := repo.ParseKey(truth.Key)
	if err != nil {
		return identity.Identity{}, errors.Join(identity.ErrInvalid, err)
	}
	ident := identity.Identity{DID: did, Handle: truth.Handle, PDS: truth.Host, Key: truth.Key, PublicKey: key}
	d.mu.Lock()
	d.cache[did] = ident
	d.mu.Unlock()
	return ident, nil
}

func (d *directory) Purge(did string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.cache, did)
}

func (d *directory) Cached(did string) (identity.Identity, bool) {
	d.mu.Lock()
	meet := d.meet
	d.meet = nil
	d.mu.Unlock()
	if meet != nil {
		meet()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	ident, ok := d.cache[did]
	return ident, ok
}

func (d *directory) Remember(ident identity.Identity, _ time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.cache[ident.DID]; ok {
		return
	}
	key, err := repo.ParseKey(ident.Key)
	if err == nil {
		ident.PublicKey = key
		d.cache[ident.DID] = ident
	}
}

func (d *directory) lookups(did string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked[did]
}

// stall has lookups of a DID wait until the answer is called.
func (d *directory) stall(did string) (answer func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.block == nil {
		d.block = map[string]chan struct{}{}
	}
	c := make(chan struct{})
	d.block[did] = c
	delete(d.cache, did)
	return sync.OnceFunc(func() {
		d.mu.Lock()
		delete(d.block, did)
		d.mu.Unlock()
		close(c)
	})
}

func (d *directory) failing(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = err
	clear(d.cache)
}

// set changes a row by hand.
func set(w *world, a *simnet.Account, f func(*store.Repo)) {
	w.t.Helper()
	setIn(w, a.DID(), func(_ *store.Batch, r *store.Repo) { f(r) })
}

func setIn(w *world, did string, f func(*store.Batch, *store.Repo)) {
	w.t.Helper()
	wait, err := w.store.UpdateRepo(did, func(b *store.Batch, r *store.Repo) error {
		f(b, r)
		b.PutRepo(r)
		return nil
	})
	if err == nil {
		err = wait()
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// reach brings an account's row into a state.
func reach(w *world, a *simnet.Account, to store.State) {
	w.t.Helper()
	setIn(w, a.DID(), func(b *store.Batch, r *store.Repo) { storetest.Reach(b, r, to) })
}

// feed is a source whose messages the test sends.
type feed struct {
	*firehose.Feed
	r *ingest.Runner
}

func (w *world) newFeed(url string, pds bool) *feed {
	return &feed{Feed: w.sources.NewFeed(url, pds), r: w.r}
}

// Send hands in a message. Frames that are no events are dropped.
func (f *feed) Send(ctx context.Context, message []byte) error {
	e, err := f.Event(ctx, message)
	if e == nil || err != nil {
		return err
	}
	return f.r.Submit(ctx, e)
}

// Idle says that all events are done, and what they wrote is to be read: they are done a moment
// before.
func (f *feed) Idle() bool { return f.Waiting() == 0 && f.Queued() == 0 }

// fill adds records to a copy until it holds n, which the account knows nothing of.
func (w *world) fill(a *simnet.Account, n int) {
	w.t.Helper()
	row := w.row(a)
	for i := int(row.Records); i < n; {
		b := w.store.NewBatch()
		var ops []store.Op
		for ; i < n && len(ops) < 1000; i++ {
			record := storetest.Text(fmt.Sprint(i))
			ops = append(ops, store.Op{Path: fmt.Appendf(nil, "app.test.fill/%d", i), CID: repo.HashCID(record), Record: record})
		}
		err := b.Apply(&row, false, row.Rev, ops)
		b.PutRepo(&row)
		if err := errors.Join(err, b.CommitSync()); err != nil {
			w.t.Fatal(err)
		}
	}
}

// connected waits until hosts know of a connection, so that it is sent all that comes from now on. A
// source counts as connected a moment earlier.
func (w *world) connected(hosts ...*simnet.Host) {
	w.t.Helper()
	for _, h := range hosts {
		w.until("a connection to "+h.URL(), func() bool { return h.Connections() > 0 })
	}
}

// encode returns values one after another as DAG-CBOR.
func encode(parts ...any) []byte {
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err)
	}
	var out []byte
	for _, p := range parts {
		part, err := mode.Marshal(p)
		if err != nil {
			panic(err)
		}
		out = append(out, part...)
	}
	return out
}

func header(kind string) map[string]any { return map[string]any{"op": 1, "t": kind} }
