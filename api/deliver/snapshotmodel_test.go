package deliver_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cistern/api/deliver"
	"cistern/api/deliver/delivertest"
	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"
)

// serveStore serves the streams of a store. They end before the store is closed.
func serveStore(t testing.TB, s *store.Store, o deliver.Options) *httptest.Server {
	t.Helper()
	handler, wait := deliver.StreamHandlerUntil(s, o)
	srv := httptest.NewServer(handler)
	t.Cleanup(func() {
		srv.Close()
		if err := wait(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return srv
}

// holdRecords gives a repository that has none a copy.
func holdRecords(t testing.TB, s *store.Store, n int, m storetest.Records) {
	t.Helper()
	var im store.Import
	change(t, s, n, func(b *store.Batch, r *store.Repo) error {
		if r.Tracked == store.Untracked {
			b.Track(r, store.ByOperator, store.PriorityOperator)
		}
		im = m.Import(*r, storetest.Rev(n))
		return nil
	})
	im.Done = func(_ store.Repo, err error) {
		if err != nil {
			t.Errorf("import of %d: %v", n, err)
		}
	}
	if err := s.Import(t.Context(), im); err != nil {
		t.Fatal(err)
	}
	if err := s.FlushImports(); err != nil {
		t.Fatal(err)
	}
}

// change changes a repository, and writes its row unless that was dropped.
func change(t testing.TB, s *store.Store, n int, fn func(b *store.Batch, r *store.Repo) error) {
	t.Helper()
	wait, err := s.UpdateRepo(storetest.DID(n), func(b *store.Batch, r *store.Repo) error {
		if err := fn(b, r); err != nil || r.State == 0 {
			return err
		}
		b.PutRepo(r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := wait(); err != nil {
		t.Fatal(err)
	}
}

func writeRecord(t testing.TB, s *store.Store, n int, path, text string) {
	t.Helper()
	op := store.Op{Path: []byte(path)}
	if text != "" {
		op.Record = storetest.Text(text)
		op.CID = repo.HashCID(op.Record)
	}
	change(t, s, n, func(b *store.Batch, r *store.Repo) error { return b.Apply(r, true, r.Rev, []store.Op{op}) })
}

// shownIn returns what the store answers of a repository: path → JSON.
func shownIn(t testing.TB, s *store.Store, n int) map[string]string {
	t.Helper()
	r, err := s.RepoOrNew(storetest.DID(n))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	if r.Status.Hidden() {
		return out
	}
	collections, err := s.Collections(&r)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range collections {
		for _, rec := range storetest.List(t, s, &r, c, "", 1<<20, false) {
			out[c+"/"+rec.Rkey] = rec.CID.String()
		}
	}
	return out
}

// author changes repositories at random.
type author struct {
	t   *testing.T
	s   *store.Store
	rng *rand.Rand
}

const authored = 12 // repositories

func (a *author) step() {
	t, s, n := a.t, a.s, 1+a.rng.IntN(authored)
	r, err := s.RepoOrNew(storetest.DID(n))
	if err != nil {
		t.Fatal(err)
	}
	switch k := a.rng.IntN(20); {
	case r.Ordinal == 0:
		holdRecords(t, s, n, storetest.Random(a.rng, a.rng.IntN(60)))
	case r.Status.Hidden():
		change(t, s, n, func(b *store.Batch, r *store.Repo) error {
			b.Show(r)
			b.Enqueue(r, store.PriorityOperator)
			b.Complete(r)
			return b.Relist(r)
		})
	case k == 0:
		change(t, s, n, func(b *store.Batch, r *store.Repo) error {
			b.Hide(r, store.StatusDeactivated, store.OriginHost, store.Retry{})
			return nil
		})
	case k == 1: // wiped, and copied anew later
		change(t, s, n, func(b *store.Batch, r *store.Repo) error {
			b.Untrack(r)
			if err := b.Wipe(r); err != nil {
				return err
			}
			gone := *r
			gone.Status = store.StatusDeleted
			b.Account(&gone)
			return nil
		})
	case k == 2: // dropped, and copied anew later
		shown := shownIn(t, s, n)
		change(t, s, n, func(b *store.Batch, r *store.Repo) error {
			var ops []store.Op
			for path := range shown {
				ops = append(ops, store.Op{Path: []byte(path)})
			}
			if err := b.Apply(r, false, r.Rev, ops); err != nil {
				return err
			}
			return b.DropRepo(r)
		})
	default:
		path := fmt.Sprintf("app.test.c%d/%d", a.rng.IntN(4), a.rng.IntN(30))
		if paths := shownIn(t, s, n); a.rng.IntN(2) == 0 && len(paths) > 0 {
			path = slices.Sorted(keys(paths))[a.rng.IntN(len(paths))]
		}
		writeRecord(t, s, n, path, []string{"", fmt.Sprint("text ", a.rng.IntN(1000))}[min(a.rng.IntN(4), 1)])
	}
}

func keys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// consumer folds a snapshot and what follows it, over any number of connections.
type consumer struct {
	url, query string
	rng        *rand.Rand
	wants      func(did, collection string) bool
	finished   *atomic.Uint64 // head after the last change; 0: not yet

	token   string
	head    uint64 // of the marker; 0: none yet
	last    uint64
	out     map[string]map[string]string
	passed  map[string]int
	changed map[string]bool
	dials   int
}

// newConsumer makes one with the i-th kind of filter.
func newConsumer(rng *rand.Rand, i int) *consumer {
	c := &consumer{rng: rand.New(rand.NewPCG(rng.Uint64(), 3)), out: map[string]map[string]string{},
		passed: map[string]int{}, changed: map[string]bool{}}
	prefix, did := []string{"", "app.test.c1", "app.test.", ""}[i%4], ""
	switch prefix {
	case "app.test.c1":
		c.query = "&collections=app.test.c1"
	case "app.test.":
		c.query = "&collections=app.test.*,com.example.none"
	}
	if i%4 == 3 || i%8 == 5 {
		did = storetest.DID(1 + rng.IntN(authored))
		c.query += "&dids=" + did
	}
	c.wants = func(d, collection string) bool {
		return strings.HasPrefix(collection, prefix) && (did == "" || d == did)
	}
	return c
}

func (c *consumer) run(ctx context.Context) error {
	for {
		ended, err := c.connection(ctx)
		if ended || err != nil {
			return err
		}
	}
}

// connection reads some frames, or until the last change.
func (c *consumer) connection(ctx context.Context) (ended bool, err error) {
	query := "?snapshot=true" + c.query
	if c.token != "" {
		query = "?resume=" + c.token + c.query
	}
	c.dials++
	ws, _, err := websocket.DefaultDialer.DialContext(ctx, "ws"+strings.TrimPrefix(c.url, "http")+"/stream"+query, nil)
	if err != nil {
		return false, err
	}
	defer ws.Close()
	if err := ws.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return false, err
	}
	asked := false
	for range 1 + c.rng.IntN(400) {
		if c.finished.Load() > 0 && !asked {
			// The answer has the id up to which the consumer has everything.
			asked = true
			_ = ws.SetReadDeadline(time.Now().Add(time.Minute))
			if err := ws.WriteMessage(websocket.TextMessage, []byte(c.same())); err != nil {
				return false, err
			}
		}
		if !asked {
			_ = ws.SetReadDeadline(time.Now().Add(time.Second))
		}
		_, text, err := ws.ReadMessage()
		if err != nil {
			if !asked && strings.Contains(err.Error(), "timeout") { // nothing that it wants happens
				return false, nil
			}
			return false, err
		}
		var m delivertest.Message
		if err := json.Unmarshal(text, &m); err != nil {
			return false, err
		}
		if m.Type == "updated" {
			if m.ID > c.finished.Load() {
				return true, nil
			}
			asked = false
			continue
		}
		if err := c.take(&m); err != nil {
			return false, fmt.Errorf("%s: %w", text, err)
		}
	}
	return false, nil
}

// same is an update to the filter that the consumer has.
func (c *consumer) same() string {
	m := map[string]any{"type": "update"}
	for pair := range strings.SplitSeq(strings.TrimPrefix(c.query, "&"), "&") {
		if name, list, ok := strings.Cut(pair, "="); ok {
			m[name] = strings.Split(list, ",")
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func (c *consumer) take(m *delivertest.Message) error {
	c.token = m.Token
	switch {
	case m.Error != "" || m.Token == "":
		return fmt.Errorf("not an event")
	case m.Snapshot && c.head > 0:
		return fmt.Errorf("a record of the snapshot behind its end")
	case m.Type == "snapshot_end":
		if c.head > 0 {
			return fmt.Errorf("a second end")
		}
		c.head, c.last = m.ID, m.ID
		return nil
	case !m.Snapshot && (c.head == 0 || m.ID <= c.last):
		return fmt.Errorf("event %d after %d, the snapshot ended at %d", m.ID, c.last, c.head)
	}
	c.last = m.ID
	if m.Account != nil {
		c.changed[m.Account.DID] = true
		if !m.Account.Active {
			delete(c.out, m.Account.DID)
		}
	}
	if m.Record == nil {
		return nil
	}
	path := m.Record.Collection + "/" + m.Record.Rkey
	if !c.wants(m.Record.DID, m.Record.Collection) {
		return fmt.Errorf("not wanted")
	}
	if m.Snapshot {
		c.passed[m.Record.DID+"/"+path]++
	} else {
		c.changed[m.Record.DID+"/"+path] = true
	}
	if c.out[m.Record.DID] == nil {
		c.out[m.Record.DID] = map[string]string{}
	}
	c.out[m.Record.DID][path] = m.Record.CID
	if m.Record.Action == "delete" {
		delete(c.out[m.Record.DID], path)
	}
	return nil
}

// check compares with what the store answers.
func (c *consumer) check(t *testing.T, s *store.Store) {
	t.Helper()
	for n := 1; n <= authored; n++ {
		did, want := storetest.DID(n), map[string]string{}
		for path, cid := range shownIn(t, s, n) {
			collection, _, _ := strings.Cut(path, "/")
			if !c.wants(did, collection) {
				continue
			}
			want[path] = cid
			if times := c.passed[did+"/"+path]; times != 1 && !c.changed[did] && !c.changed[did+"/"+path] {
				t.Errorf("%s: %s/%s did not change since %d, and came %d times", c.query, did, path, c.head, times)
			}
		}
		if got := c.out[did]; fmt.Sprint(want) != fmt.Sprint(got) && len(want)+len(got) > 0 {
			t.Errorf("%s: %s is %v, want %v", c.query, did, got, want)
		}
	}
}

// TestSnapshotModel has consumers with all kinds of filters read snapshots and follow the log, over
// connections that break at any frame, while repositories are written, hidden, wiped, dropped and
// copied anew, and the log is pruned. What they fold is what the store answers, and what did not
// change came once.
func TestSnapshotModel(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	if v := os.Getenv("CISTERN_TEST_SEED"); v != "" {
		var err error
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("CISTERN_TEST_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	var now atomic.Int64
	now.Store(1_700_000_000)
	s := storetest.Open(t, store.Options{Retention: time.Second, SnapshotRetention: 1000 * time.Hour, SmallBytes: 1,
		Now: func() time.Time { return time.Unix(now.Load(), 0) }})
	a := &author{t: t, s: s, rng: rand.New(rand.NewPCG(seed, 2))}
	for range 3 * authored {
		a.step()
	}
	srv := serveStore(t, s, deliver.Options{PageBytes: 2000, PageEvents: 40, WriteTimeout: 20 * time.Second})
	var finished atomic.Uint64
	var consumers []*consumer
	g, ctx := errgroup.WithContext(t.Context())
	for i := range 400 {
		if i%30 == 0 {
			c := newConsumer(rng, i/30)
			c.url, c.finished = srv.URL, &finished
			consumers = append(consumers, c)
			g.Go(func() error { return c.run(ctx) })
		}
		a.step()
		if i%20 == 0 {
			now.Add(100)
			pruneOnce(t, s)
		}
	}
	finished.Store(storetest.Head(t, s))
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	dials := 0
	for _, c := range consumers {
		c.check(t, s)
		dials += c.dials
	}
	t.Logf("%d connections, tail %d of %d", dials, s.Tail(), s.Head())
}

// pruneOnce applies the retention.
func pruneOnce(t *testing.T, s *store.Store) {
	t.Helper()
	if err := s.Prune(t.Context(), func(_, _ int64) {}); err != nil {
		t.Error(err)
	}
}
