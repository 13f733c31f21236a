package durable_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"cistern/api/durable"
	"cistern/filter"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
)

// TestRetentionModel lets hours pass in which events are written, subscriptions acknowledge some of
// them or none, snapshots begin, and the daemon is killed. Every minute, no event is gone that the
// retention or a subscription or snapshot within its bounds keeps, none is left that nothing keeps,
// and a gap names exactly the events that its subscription lost.
func TestRetentionModel(t *testing.T) {
	for i := range storetest.Seeds(8) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			seed := rand.Uint64()
			if v := os.Getenv("CISTERN_TEST_SEED"); v != "" {
				var err error
				if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
					t.Fatal(err)
				}
			}
			t.Logf("CISTERN_TEST_SEED=%d", seed)
			synctest.Test(t, func(t *testing.T) {
				m := newRetained(t, rand.New(rand.NewPCG(seed, i)), int(i))
				for range storetest.Seeds(600) {
					if m.step(); t.Failed() {
						break
					}
				}
				m.close()
				t.Logf("%d events, %d of them pruned, %d gaps, %d crashes", len(m.events), m.tail-1, m.gaps, m.crashes)
			})
		})
	}
}

// retained is the world of one seed.
type retained struct {
	t    *testing.T
	rng  *rand.Rand
	opts store.Options
	fs   *storetest.CrashFS
	s    *store.Store
	r    *durable.Registry
	run  errgroup.Group
	stop context.CancelFunc

	metrics *prometheus.Registry

	size      int64       // of each event
	tail      uint64      // as last checked
	events    []time.Time // when each was written, from id 1 on
	opened    time.Time
	before    uint64 // events written before the store was opened
	snapshots []begun
	subs      map[string]*acker

	gaps, crashes int
}

// begun is a snapshot.
type begun struct {
	head uint64
	at   time.Time
	lost bool // perhaps, by a crash
}

// acker is the consumer of a subscription.
type acker struct {
	pace        int   // of 10, how often it is there
	acked, safe acked // as told, and as is on disk
}

// acked is a set of events.
type acked struct {
	first uint64          // all before it are in the set, and it is not
	more  map[uint64]bool // those after it
}

func (a *acked) add(id uint64) {
	if id >= a.first {
		a.more[id] = true
	}
	for a.more[a.first] {
		delete(a.more, a.first)
		a.first++
	}
}

// from returns the first event from id on that is not in the set.
func (a *acked) from(id uint64) uint64 {
	for id = max(id, a.first); a.more[id]; {
		id++
	}
	return id
}

func (a *acked) clone() acked { return acked{a.first, maps.Clone(a.more)} }

func newRetained(t *testing.T, rng *rand.Rand, kind int) *retained {
	m := &retained{t: t, rng: rng, fs: storetest.NewCrashFS(), tail: 1, subs: map[string]*acker{}}
	minutes := func(least, most int) time.Duration {
		return time.Duration(least+rng.IntN(most-least)) * time.Minute
	}
	m.opts = store.Options{Dir: "db", SubscriptionRetention: minutes(60, 240), SnapshotRetention: minutes(1, 200)}
	if kind%3 != 1 {
		m.opts.Retention = minutes(10, 60)
	}
	m.open()
	m.size = 1
	m.write(100)
	time.Sleep(time.Minute)
	synctest.Wait()
	m.size = m.logBytes() / 100
	if kind%3 != 0 {
		m.opts.RetentionBytes = int64(500+rng.IntN(2000)) * m.size
		m.close()
		m.open()
	}
	for i := range 3 {
		m.put(string(rune('a' + i)))
	}
	return m
}

func (m *retained) open() {
	m.t.Helper()
	var err error
	m.opts.FS, m.metrics = m.fs, prometheus.NewRegistry()
	m.opts.Registerer = m.metrics
	if m.s, err = store.Open(m.opts); err != nil {
		m.t.Fatal(err)
	}
	if m.r, err = durable.New(durable.Options{Store: m.s, Log: m.s, WindowEvents: 40}); err != nil {
		m.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(m.t.Context())
	m.run, m.stop = errgroup.Group{}, stop
	m.run.Go(func() error { return m.s.Run(ctx) })
	m.run.Go(func() error { return m.prune(ctx) })
	synctest.Wait()
	m.opened, m.before = time.Now(), uint64(len(m.events))
}

// prune prunes the log as often as the daemon does.
func (m *retained) prune(ctx context.Context) error {
	tick := time.NewTicker(m.s.PruneEvery())
	defer tick.Stop()
	for {
		for _, clean := range []func(context.Context, func(done, total int64)) error{
			m.s.Prune, m.s.CollectGarbage,
		} {
			if err := clean(ctx, func(_, _ int64) {}); err != nil && ctx.Err() == nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (m *retained) close() {
	m.t.Helper()
	m.stop()
	if err := m.run.Wait(); err != nil {
		m.t.Error(err)
	}
	storetest.Check(m.t, m.s)
	if err := m.s.Close(); err != nil {
		m.t.Error(err)
	}
}

// put makes a subscription that begins somewhere in the log.
func (m *retained) put(name string) {
	m.t.Helper()
	at := durable.Start{Oldest: m.rng.IntN(2) == 0}
	st, made, err := m.r.Put(m.t.Context(), name, durable.Wanted{Start: at})
	if !made || err != nil {
		m.t.Fatal(made, err)
	}
	c := &acker{pace: m.rng.IntN(11), acked: acked{st.Next, map[uint64]bool{}}}
	c.safe = c.acked.clone()
	m.subs[name] = c
}

// write adds events.
func (m *retained) write(n int) {
	m.t.Helper()
	b := m.s.NewBatch()
	for range n {
		b.Identity(&store.Repo{DID: storetest.DID(1), Handle: "a.test"})
		m.events = append(m.events, time.Now())
	}
	if err := b.CommitSync(); err != nil {
		m.t.Fatal(err)
	}
}

// logBytes returns the metric.
func (m *retained) logBytes() int64 {
	m.t.Helper()
	all, err := m.metrics.Gather()
	if err != nil {
		m.t.Fatal(err)
	}
	for _, f := range all {
		if f.GetName() == "cistern_store_log_bytes" {
			return int64(f.GetMetric()[0].GetGauge().GetValue())
		}
	}
	m.t.Fatal("no metric of the size")
	return 0
}

// step is a minute.
func (m *retained) step() {
	m.write(m.rng.IntN(60))
	for _, name := range slices.Sorted(maps.Keys(m.subs)) {
		m.consume(name)
	}
	switch m.rng.IntN(60) {
	case 0:
		m.snapshots = append(m.snapshots, begun{m.s.BeginSnapshot(new(filter.Events)).Head, time.Now(), false})
	case 1:
		m.crash()
	case 2:
		if err := m.r.Drop("c"); err != nil {
			m.t.Fatal(err)
		}
		m.put("c")
	case 3, 4:
		m.subs[string(rune('a'+m.rng.IntN(3)))].pace = m.rng.IntN(11)
	case 5, 6: // is gone for a while
		m.subs[string(rune('a'+m.rng.IntN(3)))].pace = 0
	}
	time.Sleep(time.Minute)
	synctest.Wait()
	m.check()
}

// crash kills the daemon. What it had not synced may be lost, except what the model calls safe.
func (m *retained) crash() {
	crashed := m.fs.Clone(m.rng, m.rng.IntN(101))
	m.close()
	m.fs = crashed
	m.crashes++
	m.open()
	if m.s.Head() != uint64(len(m.events)) {
		m.t.Fatalf("head %d of %d", m.s.Head(), len(m.events))
	}
	m.tail = min(m.tail, m.s.Tail())
	for _, c := range m.subs {
		c.acked = c.safe.clone()
	}
	// The anchor of a snapshot that began in the last minute may be lost, and so may one that was
	// not synced yet.
	for i := range m.snapshots {
		q := &m.snapshots[i]
		q.lost = q.lost || time.Since(q.at) < 2*time.Minute
	}
}

// consume is a connection of a minute.
func (m *retained) consume(name string) {
	m.t.Helper()
	c := m.subs[name]
	sub, err := m.r.Find(name)
	if err != nil {
		m.t.Fatal(err)
	}
	if m.rng.IntN(10) >= c.pace {
		return
	}
	conn, err := sub.Attach()
	if err != nil {
		m.t.Fatal(err)
	}
	defer conn.Detach()
	m.gap(conn, c)
	for range 4 {
		next := m.read(conn)
		for id := max(c.acked.first, m.s.Tail()); id < next; id++ {
			if m.rng.IntN(20) > 0 {
				conn.Acknowledge(id)
				c.acked.add(id)
			}
		}
	}
	if m.rng.IntN(5) > 0 {
		if err := sub.Save(); err != nil {
			m.t.Fatal(err)
		}
		c.safe = c.acked.clone()
	}
}

// read makes the next events outstanding, and returns the id behind them.
func (m *retained) read(conn *durable.Member) (next uint64) {
	m.t.Helper()
	if err := conn.Turn(m.t.Context()); err != nil {
		m.t.Fatal(err)
	}
	defer conn.EndTurn()
	event := func(id uint64) durable.Event { return durable.Event{ID: id, DID: storetest.DID(1)} }
	for _, id := range conn.Unknown() {
		conn.Identify([]durable.Event{event(id)}, time.Now())
	}
	next, _, _ = conn.Next()
	conn.Add(time.Now(), func(_ *filter.Events, room int) (events []durable.Event, _ uint64) {
		for ; room > 0 && next <= m.s.Head(); room-- {
			events = append(events, event(next))
			next++
		}
		return events, next
	})
	return next
}

// gap compares the gaps of a new connection with what was lost.
func (m *retained) gap(conn *durable.Member, c *acker) {
	m.t.Helper()
	tail := m.s.Tail()
	lost := map[uint64]bool{}
	for id := c.acked.from(0); id < tail; id = c.acked.from(id + 1) {
		lost[id] = true
	}
	conn.Lost(tail, time.Now())
	for _, it := range conn.Take(1<<20, time.Now()) {
		if it.ID < tail != (it.Gap != 0) || it.Gap >= tail || it.Gap != 0 && !lost[it.ID] {
			m.t.Errorf("event or gap %d to %d, the tail is %d", it.ID, it.Gap, tail)
		}
		if it.Gap == 0 {
			continue
		}
		m.gaps++
		given := m.rng.IntN(3) > 0 // else it is not acknowledged, and comes again
		if given {
			conn.AcknowledgeGap(it.ID, it.Gap)
		}
		for id := it.ID; id <= it.Gap; id++ {
			delete(lost, id)
			if given {
				c.acked.add(id)
			}
		}
	}
	if len(lost) > 0 {
		m.t.Errorf("no gap has %v, the tail is %d", slices.Sorted(maps.Keys(lost)), tail)
	}
}

// check compares the tail with what has to be kept, and with what may be.
func (m *retained) check() {
	m.t.Helper()
	tail := m.s.Tail()
	for id := m.tail; id < tail; id++ {
		if why := m.needed(id); why != "" {
			m.t.Errorf("event %d was pruned: %s", id, why)
			return
		}
	}
	m.tail = tail
	if tail <= m.s.Head() && m.free(tail) {
		m.t.Errorf("nothing keeps event %d of %d: %v", tail, m.s.Head(), time.Since(m.events[tail-1]))
	}
	for name, c := range m.subs {
		age, holds := m.s.Backlog(name)
		if first := c.safe.from(tail); holds && age > time.Since(m.events[first-1]) {
			m.t.Errorf("%s holds an event of age %v, it has read up to %d", name, age, first)
		}
	}
}

// needed says why an event has to be kept.
func (m *retained) needed(id uint64) string {
	o := m.opts
	within := func(id uint64, keep time.Duration, bytes int64) bool {
		age, after := time.Since(m.events[id-1]), int64(len(m.events)-int(id))*m.size
		return (keep == 0 || age < keep) && (bytes == 0 || after < bytes)
	}
	age := time.Since(m.events[id-1])
	if within(id, o.Retention, o.RetentionBytes) {
		return fmt.Sprintf("its age is %v, and %d events follow", age, len(m.events)-int(id))
	}
	for _, s := range m.snapshots {
		if since := time.Since(s.at); !s.lost && s.head < id && since < o.SnapshotRetention {
			return fmt.Sprintf("a snapshot began at %d, %v ago", s.head, since)
		}
	}
	for name, c := range m.subs {
		first := c.safe.from(m.tail)
		for first <= id && !within(first, o.SubscriptionRetention, 2*o.RetentionBytes) {
			first = c.safe.from(first + 1)
		}
		if first <= id {
			return fmt.Sprintf("%s has not acknowledged %d, age %v", name, first, time.Since(m.events[first-1]))
		}
	}
	return ""
}

// free reports whether nothing keeps an event, with allowance for the distance of marks. A crash may
// lose what was counted, so that the count begins anew.
func (m *retained) free(id uint64) bool {
	o := m.opts
	age := time.Since(m.events[id-1])
	if id <= m.before {
		age = time.Since(m.opened)
	}
	after := int64(len(m.events)-int(max(id, m.before))) * m.size
	beyond := func(keep time.Duration, bytes int64) bool {
		return keep > 0 && age > keep+keep/64+5*time.Minute ||
			bytes > 0 && after > bytes+bytes/64+200*m.size
	}
	if !beyond(o.Retention, o.RetentionBytes) {
		return false
	}
	for _, s := range m.snapshots {
		if s.head < id && time.Since(s.at) < o.SnapshotRetention+5*time.Minute {
			return false
		}
	}
	for _, c := range m.subs {
		if c.safe.from(id) <= id && !beyond(o.SubscriptionRetention, 2*o.RetentionBytes) {
			return false
		}
	}
	return true
}
