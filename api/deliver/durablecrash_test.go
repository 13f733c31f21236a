package deliver_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"slices"
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

// TestDurableCrash lives through crashes, restarts and disconnects with a consumer that
// acknowledges at random, on one connection or on several that share the subscription. Nothing is
// lost, nothing comes again that was acknowledged before the position on disk, and no event of an
// account comes before all earlier ones have come on the same connection or are acknowledged.
func TestDurableCrash(t *testing.T) {
	t.Parallel()
	for seed := range storetest.Seeds(4) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			t.Parallel()
			c := &crashing{t: t, rng: rand.New(rand.NewPCG(seed, 7)), acked: map[uint64]bool{},
				share: []string{durable.ByDID, durable.Exclusive}[seed%2]}
			fs := storetest.NewCrashFS()
			for range 6 {
				if fs = c.live(fs, false); t.Failed() {
					return
				}
			}
			c.live(fs, true)
		})
	}
}

// crashing is the world of one seed.
type crashing struct {
	t   *testing.T
	rng *rand.Rand // of live

	share string // of the subscription

	mu    sync.Mutex
	acked map[uint64]bool // mu guards: acknowledged by the consumer, in any life
	dids  []string        // mu guards: accounts of the events, from id 1 on
}

// live is one life of the daemon. It returns the file system as a crash leaves it. The last life
// ends when all events are acknowledged.
func (c *crashing) live(fs *storetest.CrashFS, last bool) *storetest.CrashFS {
	t := c.t
	s, err := store.Open(store.Options{FS: fs, Dir: "db"})
	if err != nil {
		t.Fatal(err)
	}
	storetest.Check(t, s)
	p := c.recall(s)
	subs, err := durable.New(durable.Options{Store: s, Log: s, WindowEvents: 1 + c.rng.IntN(30),
		RetryTimeout: time.Duration(20+c.rng.IntN(100)) * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	d, h := deliver.NewWith(s, deliver.Options{Subscriptions: subs, PageEvents: 1 + c.rng.IntN(40)})
	if _, _, err := subs.Put(t.Context(), "a", durable.Wanted{Start: durable.Start{Oldest: true}, Share: c.share}); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h)
	ctx, stop := context.WithCancel(t.Context())
	var g errgroup.Group
	if !last {
		seed := c.rng.Uint64()
		g.Go(func() error { return c.write(ctx, s, rand.New(rand.NewPCG(seed, 1))) })
	}
	consumers := 1
	if c.share == durable.ByDID {
		consumers += c.rng.IntN(3)
	}
	for range consumers {
		seed := c.rng.Uint64()
		g.Go(func() error { return c.consume(ctx, srv.URL, p, rand.New(rand.NewPCG(seed, 2))) })
	}
	if last {
		c.drained(subs)
	} else {
		time.Sleep(time.Duration(c.rng.IntN(300)) * time.Millisecond) // a crash comes at any time
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

// recall reads what is on disk, and checks that the position passes no event that the consumer has
// not acknowledged.
func (c *crashing) recall(s *store.Store) store.SubscriptionPosition {
	c.dids = nil
	if _, err := s.ReadLog(c.t.Context(), 0, 1<<30, func(ev *store.Event) error {
		c.dids = append(c.dids, ev.DID)
		return nil
	}); err != nil || uint64(len(c.dids)) != s.Head() {
		c.t.Fatalf("%d events, the head is %d, %v", len(c.dids), s.Head(), err)
	}
	p, err := s.SubscriptionPosition("a")
	if errors.Is(err, store.ErrNotFound) {
		return store.SubscriptionPosition{Next: 1}
	}
	if err != nil {
		c.t.Fatal(err)
	}
	for id := uint64(1); id < p.Next; id++ {
		if !c.acked[id] && !slices.Contains(p.Outstanding, id) {
			c.t.Errorf("event %d is lost: it was not acknowledged, and the position is %+v", id, p)
		}
	}
	return p
}

// write adds events.
func (c *crashing) write(ctx context.Context, s *store.Store, rng *rand.Rand) error {
	for n := 0; n < 60 && ctx.Err() == nil; n++ {
		b := s.NewBatch()
		var dids []string
		for range 1 + rng.IntN(5) {
			r := store.Repo{DID: storetest.DID(rng.IntN(4)), Handle: "a.test"}
			b.Identity(&r)
			dids = append(dids, r.DID)
		}
		c.mu.Lock() // a consumer must not get an event before its account is known
		err := b.CommitSync()
		c.dids = append(c.dids, dids...)
		c.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// consume follows the subscription from its position at the start, with disconnects.
func (c *crashing) consume(ctx context.Context, url string, p store.SubscriptionPosition, rng *rand.Rand) error {
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
			return err
		}
	}
	return nil
}

// connected reads from one connection, and acknowledges some of what comes.
func (c *crashing) connected(ctx context.Context, ws *websocket.Conn, p store.SubscriptionPosition, rng *rand.Rand) error {
	defer ws.Close()
	defer context.AfterFunc(ctx, func() { _ = ws.Close() })()
	var unacked []uint64
	n, last := 20+rng.IntN(400), map[string]uint64{}
	stalls := rng.IntN(6) == 0 // then it acknowledges nothing
	if stalls {
		n = 20 // with a window of one event, each comes after a retry timeout
	}
	for ; n > 0; n-- {
		_, text, err := ws.ReadMessage()
		if err != nil {
			return nil // ctx has ended
		}
		id, err := idOf(text)
		if err != nil {
			return err
		}
		if id < p.Next && !slices.Contains(p.Outstanding, id) {
			return fmt.Errorf("event %d came again: it was acknowledged at %+v", id, p)
		}
		if err := c.inOrder(id, last); err != nil {
			return err
		}
		if unacked = append(unacked, id); rng.IntN(10) == 0 {
			rng.Shuffle(len(unacked), func(i, j int) { unacked[i], unacked[j] = unacked[j], unacked[i] })
		}
		for len(unacked) > 0 && !stalls && rng.IntN(12) > 0 {
			ack := unacked[0]
			unacked = unacked[1:]
			if rng.IntN(40) == 0 {
				continue // is forgotten, and is to come again
			}
			c.mu.Lock()
			c.acked[ack] = true
			c.mu.Unlock()
			if ws.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `{"type":"ack","id":%d}`, ack)) != nil {
				return nil
			}
		}
	}
	return nil
}

// inOrder checks that every event between the last one of an account and this one is acknowledged.
func (c *crashing) inOrder(id uint64, last map[string]uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	did := c.dids[id-1]
	for between := last[did] + 1; between < id; between++ {
		if c.dids[between-1] == did && !c.acked[between] {
			return fmt.Errorf("event %d came before %d of the same account", id, between)
		}
	}
	last[did] = id
	return nil
}

// drained waits until nothing is left.
func (c *crashing) drained(subs *durable.Registry) {
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		st, err := subs.Status("a")
		if err != nil || time.Now().After(end) {
			c.t.Errorf("not drained: %+v, %v", st, err)
			return
		}
		if st.Lag == 0 && st.Outstanding == 0 {
			break
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.dids {
		if !c.acked[uint64(i+1)] {
			c.t.Errorf("event %d of %d never came", i+1, len(c.dids))
			return
		}
	}
	c.t.Logf("%d events", len(c.dids))
}

func idOf(text []byte) (id uint64, err error) {
	m, err := delivertest.Parse(text)
	if err == nil && m.Error != "" {
		err = fmt.Errorf("the stream ends: %s", text)
	}
	return m.ID, err
}
