package deliver_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/api/deliver"
	"cistern/api/deliver/delivertest"
	"cistern/api/durable"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"
)

// TestDurableSnapshotModel has a subscription begin with snapshots, again and again, over one
// connection or several, while repositories are written, hidden, wiped, dropped and copied anew, and
// the daemon crashes between any two writes. Connections break, acknowledge in any order, twice, too
// late, or not at all. What is folded at the end is what the store answers; what did not change came
// once; a number names one record for ever; what was acknowledged before the position on disk does
// not come again; and no event comes before the end of the snapshot.
func TestDurableSnapshotModel(t *testing.T) {
	t.Parallel()
	first := uint64(1)
	if v := os.Getenv("CISTERN_TEST_SEED"); v != "" {
		var err error
		if first, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	for seed := first; seed < first+storetest.Seeds(4); seed++ {
		t.Run(fmt.Sprint("CISTERN_TEST_SEED=", seed), func(t *testing.T) {
			t.Parallel()
			c := newSnapshotFold(t, rand.New(rand.NewPCG(seed, 9)))
			fs := storetest.NewCrashFS()
			for range 5 {
				if fs = c.live(fs, false); t.Failed() {
					return
				}
			}
			c.live(fs, true)
			t.Logf("met %v", c.met)
		})
	}
}

// snapshotFold is the consumer of a subscription, which never loses what it holds.
type snapshotFold struct {
	t      *testing.T
	rng    *rand.Rand // of live
	wanted durable.Wanted
	wants  func(did, collection string) bool

	mu sync.Mutex // guards what follows
	// of the present snapshot:
	records map[uint64]string // by number: did/path
	times   map[string]int    // by did/path: how often it came under another number
	ended   uint64            // the number of its end; 0: that did not come
	next    uint64            // the first event behind it
	changed map[string]bool   // did, or did/path: the log had it
	out     map[string]map[string]string
	applied map[string]uint64 // by did: the last event

	came   int // messages
	failed bool

	acked map[uint64]bool
	stale []uint64 // acknowledged before: again, and too late
	names map[uint64]string
	met   map[string]int
}

func newSnapshotFold(t *testing.T, rng *rand.Rand) *snapshotFold {
	c := &snapshotFold{t: t, rng: rng, wants: func(string, string) bool { return true },
		acked: map[uint64]bool{}, names: map[uint64]string{}, met: map[string]int{}}
	c.wanted.Start.Snapshot = true
	if rng.IntN(2) == 0 {
		c.wanted.Share = durable.ByDID
	}
	f := &c.wanted.Filter
	switch rng.IntN(4) {
	case 0:
		f.Collections = []string{"app.test.c1", "app.test.c2"}
		c.wants = func(_, collection string) bool {
			return collection == f.Collections[0] || collection == f.Collections[1]
		}
	case 1:
		f.DIDs = []string{storetest.DID(2), storetest.DID(3), storetest.DID(5)}
		c.wants = func(did, _ string) bool { return did == f.DIDs[0] || did == f.DIDs[1] || did == f.DIDs[2] }
	}
	c.begin()
	return c
}

// begin forgets everything for a new snapshot. mu is held.
func (c *snapshotFold) begin() {
	c.records, c.times, c.changed = map[uint64]string{}, map[string]int{}, map[string]bool{}
	c.out, c.applied = map[string]map[string]string{}, map[string]uint64{}
	c.ended, c.next = 0, 0
}

// live serves until a crash, and returns the disk that it leaves. The last life ends when
// everything is acknowledged.
func (c *snapshotFold) live(fs *storetest.CrashFS, last bool) *storetest.CrashFS {
	t := c.t
	s, err := store.Open(store.Options{FS: fs, Dir: "db", SmallBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	storetest.Check(t, s)
	a := &author{t: t, s: s, rng: rand.New(rand.NewPCG(c.rng.Uint64(), 2))}
	if s.Head() == 0 {
		for range 2 * authored {
			a.step()
		}
	}
	subs, err := durable.New(durable.Options{Store: s, Log: s, WindowEvents: 1 + c.rng.IntN(40),
		RetryTimeout: time.Duration(20+c.rng.IntN(100)) * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	p := c.open(s, subs)
	d, h := deliver.NewWith(s, deliver.Options{Subscriptions: subs, PageEvents: 2 + c.rng.IntN(40)})
	srv := httptest.NewServer(h)
	ctx, stop := context.WithCancel(t.Context())
	var g errgroup.Group
	for range 1 + c.rng.IntN(3)*len(c.wanted.Share)/len(durable.ByDID) {
		seed := c.rng.Uint64()
		g.Go(func() error { return c.consume(ctx, srv.URL, p, rand.New(rand.NewPCG(seed, 2))) })
	}
	if !last { // a crash comes at any time
		for range c.rng.IntN(40) {
			a.step()
		}
		c.await(subs, c.rng.IntN(500))
		for range c.rng.IntN(10) {
			a.step()
		}
	} else if c.await(subs, math.MaxInt) {
		c.check(s)
	}
	clean := c.rng.IntN(4) == 0
	crashed := fs.Clone(c.rng, c.rng.IntN(101))
	stop()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if err := d.Wait(context.WithoutCancel(ctx)); err != nil {
		t.Error(err)
	}
	srv.Close()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if clean {
		return fs
	}
	return crashed
}

// open makes the subscription, or replays it now and then, and returns its position.
func (c *snapshotFold) open(s *store.Store, subs *durable.Registry) store.SubscriptionPosition {
	p, err := s.SubscriptionPosition("a") // before Put writes one that skips numbers
	lost := errors.Is(err, store.ErrNotFound)
	if err != nil && !lost {
		c.t.Fatal(err)
	}
	if _, _, err := subs.Put(c.t.Context(), "a", c.wanted); err != nil {
		c.t.Fatal(err)
	}
	if lost || c.rng.IntN(5) == 0 {
		if !lost {
			c.met["replays"]++
			if _, err := subs.Replay(c.t.Context(), "a", durable.Start{Snapshot: true}); err != nil {
				c.t.Fatal(err)
			}
		}
		c.begin()
		if p, err = s.SubscriptionPosition("a"); err != nil {
			c.t.Fatal(err)
		}
	}
	c.recall(p)
	return p
}

// recall takes in the position: the place of the pass is back at it. What it passes and was not
// acknowledged has changed since.
func (c *snapshotFold) recall(p store.SubscriptionPosition) {
	outstanding := map[uint64]bool{}
	if p.Snapshot != nil {
		c.met["snapshots"]++
		for _, r := range p.Snapshot.Outstanding {
			outstanding[r.Number] = true
			if name, ok := c.names[r.Number]; ok && name != r.DID+"/"+r.Path {
				c.t.Errorf("number %d is of %s, and was of %s", r.Number, r.DID+"/"+r.Path, name)
			}
		}
	}
	for n, name := range c.records {
		switch {
		case n > p.Numbered:
			delete(c.records, n)
			c.times[name]--
			c.met["read again"]++
		case !outstanding[n] && !c.acked[n]:
			c.met["gone"]++ // and not lost: check
			c.times[name] = 0
		}
	}
}

// consume follows the subscription from its position at the start, with disconnects.
func (c *snapshotFold) consume(
	ctx context.Context, url string, p store.SubscriptionPosition, rng *rand.Rand,
) error {
	url = "ws" + strings.TrimPrefix(url, "http") + deliver.Events
	for ctx.Err() == nil {
		ws, res, err := websocket.DefaultDialer.DialContext(ctx, url, nil)
		if res != nil && res.StatusCode == 400 || ctx.Err() != nil {
			continue // the last connection has not ended yet
		}
		if err != nil {
			return err
		}
		if err := c.connected(ctx, ws, p, rng); err != nil {
			c.mu.Lock()
			c.failed = true
			c.mu.Unlock()
			return err
		}
	}
	return nil
}

// connected reads from one connection, and acknowledges some of what comes.
func (c *snapshotFold) connected(
	ctx context.Context, ws *websocket.Conn, p store.SubscriptionPosition, rng *rand.Rand,
) error {
	defer ws.Close()
	defer context.AfterFunc(ctx, func() { _ = ws.Close() })()
	var unacked []uint64
	for n := 20 + rng.IntN(400); n > 0; n-- {
		_, text, err := ws.ReadMessage()
		if err != nil {
			return nil // ctx has ended
		}
		m, err := delivertest.Parse(text)
		if err == nil {
			err = c.take(&m, p)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
		if unacked = append(unacked, m.ID); rng.IntN(10) == 0 {
			rng.Shuffle(len(unacked), func(i, j int) { unacked[i], unacked[j] = unacked[j], unacked[i] })
		}
		for len(unacked) > 0 && rng.IntN(12) > 0 {
			ack := unacked[0]
			unacked = unacked[1:]
			if rng.IntN(40) == 0 {
				continue // is forgotten, and is to come again
			}
			if ws.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `{"type":"ack","id":%d}`, c.ack(ack, rng))) != nil {
				return nil
			}
		}
	}
	return nil
}

// ack returns what to acknowledge, which sometimes was acknowledged before.
func (c *snapshotFold) ack(id uint64, rng *rand.Rand) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.stale) > 0 && rng.IntN(8) == 0 {
		return c.stale[rng.IntN(len(c.stale))]
	}
	c.acked[id] = true
	c.stale = append(c.stale, id)
	return id
}

// take takes in one message. p is the position at the start of the daemon.
func (c *snapshotFold) take(m *delivertest.Message, p store.SubscriptionPosition) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.came++
	switch {
	case m.Error != "":
		return errors.New("the connection ends")
	case m.Type == "snapshot_end":
		if c.ended != 0 && c.ended != m.ID && c.acked[c.ended] {
			c.met["ends again"]++ // a crash took the position back
		}
		c.ended, c.next = m.ID, m.Next
		return c.number(m.ID, "end", p)
	case m.Snapshot:
		return c.record(m, p)
	case c.next == 0 || m.ID < c.next:
		return fmt.Errorf("an event before the end of the snapshot, which has the next one %d", c.next)
	case p.Snapshot == nil && m.ID < p.Next && !contains(p.Outstanding, m.ID):
		return fmt.Errorf("it was acknowledged at %+v", p)
	}
	c.event(m)
	return nil
}

func contains(ids []uint64, id uint64) bool {
	for _, other := range ids {
		if other == id {
			return true
		}
	}
	return false
}

// number checks that a number is of one thing, and was not acknowledged at the position p. mu is
// held.
func (c *snapshotFold) number(n uint64, name string, p store.SubscriptionPosition) error {
	if n <= store.NumbersFrom {
		return errors.New("not a number of a snapshot")
	}
	if was, ok := c.names[n]; ok && was != name {
		return fmt.Errorf("the number was that of %s", was)
	}
	c.names[n] = name
	if n > p.Numbered {
		return nil
	}
	if p.Snapshot != nil && n == p.Snapshot.Last {
		return nil
	}
	for i := 0; p.Snapshot != nil && i < len(p.Snapshot.Outstanding); i++ {
		if p.Snapshot.Outstanding[i].Number == n {
			return nil
		}
	}
	return fmt.Errorf("it was settled at %+v", p)
}

// record takes in a record of a snapshot. mu is held.
func (c *snapshotFold) record(m *delivertest.Message, p store.SubscriptionPosition) error {
	did, path := m.Record.DID, m.Record.Collection+"/"+m.Record.Rkey
	name := did + "/" + path
	if err := c.number(m.ID, name, p); err != nil {
		return err
	}
	if !c.wants(did, m.Record.Collection) {
		return errors.New("not wanted")
	}
	if _, ok := c.records[m.ID]; !ok {
		c.records[m.ID] = name
		c.times[name]++
	} else {
		c.met["redelivered"]++
	}
	if c.times[name] > 1 {
		return fmt.Errorf("it comes under another number of the same snapshot: %v", c.records)
	}
	c.put(did, path, m.Record.CID)
	return nil
}

func (c *snapshotFold) put(did, path, cid string) {
	if c.out[did] == nil {
		c.out[did] = map[string]string{}
	}
	c.out[did][path] = cid
}

// event takes in an event of the log. mu is held.
func (c *snapshotFold) event(m *delivertest.Message) {
	var did string
	switch {
	case m.Record != nil:
		did = m.Record.DID
	case m.Account != nil:
		did = m.Account.DID
	default:
		return
	}
	if m.ID <= c.applied[did] {
		return
	}
	c.applied[did] = m.ID
	switch path := ""; {
	case m.Account != nil:
		c.changed[did] = true
		if !m.Account.Active {
			delete(c.out, did)
		}
	default:
		path = m.Record.Collection + "/" + m.Record.Rkey
		c.changed[did+"/"+path] = true
		if c.put(did, path, m.Record.CID); m.Record.Action == "delete" {
			delete(c.out[did], path)
		}
	}
}

// await waits until most messages came, or nothing is left.
func (c *snapshotFold) await(subs *durable.Registry, most int) (ok bool) {
	c.mu.Lock()
	c.came = 0
	c.mu.Unlock()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		st, err := subs.Status("a")
		c.mu.Lock()
		came, failed := c.came, c.failed
		c.mu.Unlock()
		switch {
		case failed:
			return false // the consumer says why
		case err != nil || time.Now().After(end):
			c.t.Errorf("not drained: %+v, %v", st, err)
			return false
		case came >= most || st.Lag == 0 && st.Outstanding == 0 && st.Snapshot == nil:
			return true
		}
	}
}

// check compares what is folded with what the store answers.
func (c *snapshotFold) check(s *store.Store) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := 1; n <= authored; n++ {
		did, want := storetest.DID(n), map[string]string{}
		for path, cid := range shownIn(c.t, s, n) {
			collection, _, _ := strings.Cut(path, "/")
			if !c.wants(did, collection) {
				continue
			}
			want[path] = cid
			if times := c.times[did+"/"+path]; times != 1 && !c.changed[did] && !c.changed[did+"/"+path] {
				c.t.Errorf("%s/%s did not change from %d on, and came %d times", did, path, c.next, times)
			}
		}
		if got := c.out[did]; fmt.Sprint(want) != fmt.Sprint(got) && len(want)+len(got) > 0 {
			c.t.Errorf("%s is %v, want %v", did, got, want)
		}
	}
}
