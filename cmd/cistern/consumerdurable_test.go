package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"
)

// transport is how a subscriber gets events and acknowledges them.
type transport interface {
	// dial connects.
	dial(ctx context.Context) (acknowledged, error)
}

// acknowledged is one connection of a subscriber.
type acknowledged interface {
	// next returns the events of the next message. errEnough means that no message came in time; the
	// connection cannot be used any more.
	next(wait time.Duration) ([]delivered, error)
	ack(r receipt) error
	// leave ends the connection. It reports whether all acknowledgements are surely written.
	leave(polite bool) (written bool)
}

// receipt is what acknowledges an event, or a gap by its last id too.
type receipt struct{ id, to uint64 }

// subscriber is the consumer of a durable subscription. It applies events as they come, and
// acknowledges them out of order, some of them never.
type subscriber struct {
	w     *deliveries
	name  string
	by    transport
	conns int    // connections at a time, at most
	rich  bool   // its filter may also choose kinds, actions, and whether events are live
	quiet bool   // gaps are not told
	kept  uint64 // without gaps: what was lost before it is known
	ahead int    // it acknowledges when it has so many events; 0: only at random

	webhook map[string]any // what PUT says of its webhook; nil: none
	whole   bool           // it acknowledges all that it has, or nothing

	rng     *rand.Rand // of session
	made    bool
	pending *wish // a filter that the daemon has perhaps

	mu      sync.Mutex // guards what follows
	begun   bool       // the state has what the log no longer tells
	state   subscriberState
	saved   subscriberState // what a crash leaves: written before each acknowledgement
	turns   []turn
	got     map[uint64]bool
	acked   map[uint64]bool
	written map[uint64]bool // acknowledged, and never to come again
	lost    []passage       // gaps
	highest uint64
	life    *settledBefore // in which highest was sent: a kill takes the position back
}

// subscriberState is what a consumer holds. Of each account it knows the last event that it has
// applied, so that it does not matter if one comes again.
type subscriberState struct {
	held    fold
	applied map[string]uint64
	floor   uint64 // every event up to it is in held
}

func (s subscriberState) clone() subscriberState {
	s.held, s.applied = s.held.clone(), maps.Clone(s.applied)
	return s
}

// turn is a filter of a subscription. It holds from an id between low and at on, which are equal
// unless an answer was lost.
type turn struct {
	low, at uint64
	want    wish
}

func newSubscriber(w *deliveries, name string, rng *rand.Rand, conns int) *subscriber {
	return &subscriber{w: w, name: name, rng: rng, conns: conns, rich: true,
		by: &durableSocket{w, name}, turns: []turn{{want: w.random(rng, true)}},
		got: map[uint64]bool{}, acked: map[uint64]bool{}, written: map[uint64]bool{}}
}

// newTap returns a client of tap, which has the subscription of that name.
func newTap(w *deliveries, rng *rand.Rand) *subscriber {
	c := newSubscriber(w, "tap", rng, 3)
	c.by, c.rich, c.quiet, c.ahead = &tapSocket{w}, false, true, 8
	c.turns[0].want = w.random(rng, false)
	return c
}

func (c *subscriber) want() *wish { return &c.turns[len(c.turns)-1].want }
func (c *subscriber) restart()    {}
func (c *subscriber) at() uint64  { return c.highest }
func (c *subscriber) result() (fold, wish, bool) {
	return c.state.held, *c.want(), c.want().folds()
}
func (c *subscriber) mistake(f string, a ...any) error {
	return fmt.Errorf("%s: "+f, append([]any{c.name}, a...)...)
}

// put makes the subscription, or gives it a filter.
func (c *subscriber) put(ctx context.Context, want wish) (next uint64, err error) {
	body := map[string]any{"filter": want, "start": "head"}
	switch {
	case c.webhook != nil:
		body["webhook"] = c.webhook
	case c.conns > 1:
		body["share"] = "did"
	}
	var answer struct{ Next uint64 }
	status, err := c.w.request(ctx, "PUT", "/subscriptions/"+c.name, body, &answer)
	if err == nil && status != http.StatusOK && status != http.StatusCreated {
		err = c.mistake("PUT %+v: %d", body, status)
	}
	return answer.Next, err
}

// prepare makes the subscription, perhaps changes its filter, and takes a snapshot if the state
// lacks anything.
func (c *subscriber) prepare(ctx context.Context) error {
	if !c.made {
		next, err := c.put(ctx, *c.want())
		if err != nil {
			return err
		}
		// A lost answer may have made it earlier.
		c.turns[0].low, c.turns[0].at, c.made, c.kept = next, next, true, next
		c.w.ledger.tell(c.name, "filter %+v from %d on", c.turns[0].want, next)
	}
	if c.pending == nil && c.rng.IntN(5) == 0 && !c.w.frozen.Load() {
		other, _ := c.w.other(c.rng, *c.want(), c.rich)
		c.pending = &other
		low := c.turns[len(c.turns)-1].at
		if p := c.w.position(c.name); p != nil {
			low = max(low, p.Next)
		}
		c.turns = append(c.turns, turn{low: low, at: ^uint64(0), want: other})
	}
	if c.pending != nil {
		t := &c.turns[len(c.turns)-1]
		first := t.low > 0 && t.at == ^uint64(0)
		next, err := c.put(ctx, t.want)
		if err != nil {
			t.at-- // the boundary is not exact
			return err
		}
		if next <= c.highest && c.life == c.w.position(c.name) {
			return c.mistake("the filter holds from %d, and event %d was sent", next, c.highest)
		}
		if t.at = next; first {
			t.low = next
		}
		c.w.ledger.count("filters of subscriptions", 1)
		c.w.ledger.tell(c.name, "filter %+v from %d (%d) on", t.want, t.low, t.at)
		c.pending, c.begun = nil, false
	}
	if c.quiet {
		tail, err := c.w.tail()
		if err != nil {
			return err
		}
		if tail > c.kept {
			c.lost = append(c.lost, passage{from: c.kept, to: tail})
			c.kept, c.begun = tail, false
		}
	}
	if c.begun {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.snapshot(ctx, "")
}

// snapshot replaces the state, by the path that a gap names, if any. mu is held: what other
// connections get meanwhile comes after it.
func (c *subscriber) snapshot(ctx context.Context, path string) error {
	c.begun = false
	fresh := subscriberState{held: fold{}, applied: map[string]uint64{}}
	if c.want().folds() {
		held, head, err := c.w.snapshot(ctx, *c.want(), path)
		if err != nil {
			return err
		}
		fresh.held, fresh.floor = held, head
	}
	c.begun, c.state, c.saved = true, fresh, fresh.clone()
	return nil
}

// session consumes over some connections, and may crash.
func (c *subscriber) session(ctx context.Context) error {
	if err := c.prepare(ctx); err != nil {
		return err
	}
	var g errgroup.Group
	for range 1 + c.rng.IntN(c.conns) {
		rng := rand.New(rand.NewPCG(c.rng.Uint64(), 5))
		n := rng.IntN([]int{40, 500}[rng.IntN(2)])
		g.Go(func() error { return c.connection(ctx, rng, n) })
	}
	err := g.Wait()
	if c.rng.IntN(3) == 0 {
		c.w.ledger.count("crashes of consumers", 1)
		c.state = c.saved.clone()
	}
	return err
}

// connection reads some messages.
func (c *subscriber) connection(ctx context.Context, rng *rand.Rand, n int) (err error) {
	position := c.w.position(c.name)
	a, err := c.by.dial(ctx)
	if err != nil {
		return err
	}
	k := c.attach(a, rng, position)
	c.mu.Lock()
	before := maps.Clone(c.acked)
	c.mu.Unlock()
	for ; n > 0 && err == nil && !c.w.frozen.Load(); n-- {
		if rng.IntN(50) == 0 {
			pause(ctx, time.Duration(rng.IntN(60))*time.Millisecond)
		}
		err = k.next(ctx, time.Duration(10+rng.IntN(300))*time.Millisecond, false)
	}
	k.finish(err, before)
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// attached is what a subscriber knows of one connection.
type attached struct {
	*subscriber
	conn     acknowledged
	rng      *rand.Rand
	position *settledBefore
	unacked  []receipt
	sent     []uint64 // acknowledged here
	last     map[string]uint64
	got      map[uint64]bool
	from, to uint64
}

func (c *subscriber) attach(a acknowledged, rng *rand.Rand, p *settledBefore) *attached {
	return &attached{subscriber: c, conn: a, rng: rng, position: p, last: map[string]uint64{},
		got: map[uint64]bool{}}
}

// next takes in one message, and perhaps acknowledges.
func (k *attached) next(ctx context.Context, wait time.Duration, all bool) error {
	events, err := k.conn.next(wait)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range events {
		if err := k.take(ctx, &events[i]); err != nil {
			if errors.Is(err, errAway) {
				return err
			}
			return k.mistake("%w", err)
		}
	}
	if !all && k.rng.IntN(10) > 0 && (k.ahead == 0 || len(k.unacked) < k.ahead) {
		return nil
	}
	return k.acknowledge(all)
}

// take takes in one event. mu is held.
func (k *attached) take(ctx context.Context, ev *delivered) error {
	switch ev.what {
	case "error", "outdated":
		return fmt.Errorf("the connection ends: %s %s", ev.what, ev.text)
	case "gap":
		k.w.ledger.count("gaps", 1)
		k.w.ledger.tell(k.name, "gap from %d to %d", ev.id, ev.to)
		k.lost = append(k.lost, passage{from: ev.id, to: ev.to + 1})
		k.unacked = append(k.unacked, receipt{ev.id, ev.to})
		k.pass(nil)
		if k.webhook != nil {
			ev.text = "" // it may be older than the filter: the request has been on its way
		}
		return k.snapshot(ctx, ev.text)
	}
	if k.written[ev.id] || k.position.settled(ev.id) {
		return fmt.Errorf("event %d comes again, and its acknowledgement was written", ev.id)
	}
	if last, ok := k.last[ev.did]; ok && ev.id <= last {
		return fmt.Errorf("event %d of %s comes after %d", ev.id, ev.did, last)
	}
	if k.conns == 1 && k.to > ev.id {
		return fmt.Errorf("event %d comes after %d", ev.id, k.to-1)
	}
	fits := false
	for _, want := range k.filters(ev.id, ev.id+1) {
		fits = fits || want.wants(ev)
	}
	if !fits {
		return fmt.Errorf("event %d is not wanted: %s", ev.id, ev.identity())
	}
	if err := k.w.ledger.note(ev); err != nil {
		return err
	}
	if k.subscriber.got[ev.id] {
		k.w.ledger.count("redelivered", 1)
	}
	k.last[ev.did], k.got[ev.id], k.subscriber.got[ev.id] = ev.id, true, true
	if k.from == 0 {
		k.from = ev.id
	}
	k.to = max(k.to, ev.id+1)
	if k.life != k.position {
		k.life, k.highest = k.position, 0
	}
	k.highest = max(k.highest, ev.id)
	k.unacked = append(k.unacked, receipt{id: ev.id})
	if ev.id > k.state.floor && ev.id > k.state.applied[ev.did] {
		k.state.applied[ev.did] = ev.id
		if k.want().wants(ev) {
			k.state.held.take(ev)
		}
	}
	return nil
}

// acknowledge acknowledges some of what is applied, in any order. mu is held.
func (k *attached) acknowledge(all bool) error {
	k.saved = k.state.clone()
	k.rng.Shuffle(len(k.unacked), func(i, j int) {
		k.unacked[i], k.unacked[j] = k.unacked[j], k.unacked[i]
	})
	all = all || k.whole
	n := len(k.unacked)
	if !all {
		n = k.rng.IntN(n + 1)
	}
	for _, r := range k.unacked[:n] {
		if !all && k.rng.IntN(30) == 0 {
			continue // forgotten
		}
		k.acked[r.id] = true
		k.sent = append(k.sent, r.id)
		if err := k.conn.ack(r); err != nil {
			return err
		}
	}
	k.unacked = k.unacked[n:]
	return nil
}

// filters returns the filters by which events from one id to another may have been chosen. mu is
// held.
func (c *subscriber) filters(from, to uint64) (all []wish) {
	for i, t := range c.turns {
		if (i == 0 || to > t.low) && (i+1 == len(c.turns) || from < c.turns[i+1].at) {
			all = append(all, t.want)
		}
	}
	return all
}

// finish ends the connection.
func (k *attached) finish(err error, before map[uint64]bool) {
	written := k.conn.leave((err == nil || errors.Is(err, errEnough)) && k.rng.IntN(2) == 0)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.w.ledger.tell(k.name, "%d accounts, acknowledged %v, up to event %d: %v",
		len(k.last), k.sent, k.to, err)
	if written {
		k.w.ledger.count("clean ends", 1)
		for _, id := range k.sent {
			k.written[id] = true
		}
	}
	if k.conns == 1 {
		k.pass(before)
	}
}

// pass records what a connection has passed: what was not acknowledged before it came.
func (k *attached) pass(before map[uint64]bool) {
	if before != nil {
		maps.Copy(k.got, before)
		k.w.ledger.pass(passage{k.name + ", one connection", k.from, k.to,
			k.filters(k.from, k.to), k.got})
	}
	k.from, k.to, k.got = 0, 0, map[uint64]bool{}
}

// settle acknowledges everything until nothing is left.
func (c *subscriber) settle(ctx context.Context) error {
	if err := c.prepare(ctx); err != nil {
		return err
	}
	position := c.w.position(c.name)
	a, err := c.by.dial(ctx)
	if err != nil {
		return err
	}
	k := c.attach(a, c.rng, position)
	inner, cancel := context.WithCancel(ctx)
	g, inner := errgroup.WithContext(inner)
	g.Go(func() error {
		defer a.leave(false)
		return c.drained(inner)
	})
	g.Go(func() error {
		defer cancel()
		for {
			if err := k.next(ctx, time.Minute, true); errors.Is(err, errAway) {
				return nil // drained
			} else if err != nil {
				return err
			}
		}
	})
	if err := g.Wait(); err != nil {
		return err
	}
	return c.conclude()
}

// drained waits until the subscription is at the head, with nothing outstanding.
func (c *subscriber) drained(ctx context.Context) error {
	p := patience{limit: time.Minute}
	for {
		var st struct{ Lag, Outstanding uint64 }
		status, err := c.w.request(ctx, "GET", "/subscriptions/"+c.name, nil, &st)
		switch {
		case err != nil || status != http.StatusOK:
			return c.mistake("status %d: %w", status, err)
		case st.Lag == 0 && st.Outstanding == 0:
			return nil
		case p.ends(st):
			return c.mistake("not drained: %+v", st)
		}
		pause(ctx, 5*time.Millisecond)
	}
}

// conclude compares what came with what was acknowledged.
func (c *subscriber) conclude() error {
	gone := func(id uint64) bool {
		return slices.ContainsFunc(c.lost, func(p passage) bool {
			return p.from <= id && id < p.to
		})
	}
	got := maps.Clone(c.got)
	for id := range got {
		ev := c.w.ledger.event(id)
		// A kill took the position back, and then the filter changed.
		other := slices.ContainsFunc(c.turns, func(t turn) bool {
			return t.low <= id && !t.want.wants(&ev)
		})
		if !c.acked[id] && !gone(id) && !other && (ev.what != "record" || !c.w.shaky[ev.did]) {
			return c.mistake("event %d was not acknowledged, and did not come again: %s",
				id, ev.identity())
		}
	}
	for _, p := range c.lost {
		for id := p.from; id < p.to; id++ {
			got[id] = true
		}
	}
	for i, t := range c.turns {
		low := c.w.head + 1
		if i+1 < len(c.turns) {
			next := &c.turns[i+1]
			low = next.low
			c.w.ledger.pass(passage{c.name, low, next.at, []wish{t.want, next.want}, got})
		}
		c.w.ledger.pass(passage{c.name, t.at, low, []wish{t.want}, got})
	}
	return nil
}

// tapSocket is a connection of the protocol of tap.
type tapSocket struct{ w *deliveries }

func (d *tapSocket) dial(ctx context.Context) (acknowledged, error) {
	dialer := websocket.Dialer{HandshakeTimeout: 10 * time.Second}
	ws, res, err := dialer.DialContext(ctx, "ws://"+d.w.index.admin+"/channel", nil)
	switch {
	case err == nil:
		d.w.ledger.count("connections", 1)
		return &durableConnection{ws, readTap}, nil
	case res == nil:
		return nil, errAway
	}
	return nil, fmt.Errorf("tap: %w: %s", err, res.Status)
}

// readTap reads an event in the format of tap, which has one type for accounts and identities.
func readTap(text []byte) (ev delivered, err error) {
	var m struct {
		Identity *struct {
			Active bool `json:"is_active"`
		}
	}
	if ev, err = readCistern(text); err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err == nil && m.Identity != nil {
		ev.what, ev.told, ev.active = "either", false, m.Identity.Active
	}
	return ev, err
}

// durableSocket is the WebSocket of a subscription.
type durableSocket struct {
	w    *deliveries
	name string
}

func (d *durableSocket) dial(ctx context.Context) (acknowledged, error) {
	dialer := websocket.Dialer{HandshakeTimeout: 10 * time.Second}
	target := "ws://" + d.w.index.admin + "/subscriptions/" + d.name + "/events"
	ws, res, err := dialer.DialContext(ctx, target, nil)
	switch {
	case err == nil:
		d.w.ledger.count("connections", 1)
		return &durableConnection{ws, readCistern}, nil
	case res == nil, res.StatusCode == http.StatusConflict,
		res.StatusCode == http.StatusServiceUnavailable:
		return nil, errAway
	}
	return nil, fmt.Errorf("%s: %w: %s", d.name, err, res.Status)
}

type durableConnection struct {
	ws   *websocket.Conn
	read func(text []byte) (delivered, error)
}

func (d *durableConnection) next(wait time.Duration) ([]delivered, error) {
	_ = d.ws.SetReadDeadline(time.Now().Add(wait))
	_, message, err := d.ws.ReadMessage()
	if err != nil {
		return nil, ended(err, wait)
	}
	ev, err := d.read(message)
	return []delivered{ev}, err
}

func (d *durableConnection) ack(r receipt) error {
	message := fmt.Appendf(nil, `{"type":"ack","id":%d}`, r.id)
	if r.to != 0 {
		message = fmt.Appendf(nil, `{"type":"ack","id":%d,"to":%d}`, r.id, r.to)
	}
	if d.ws.WriteMessage(websocket.TextMessage, message) != nil {
		return errAway
	}
	return nil
}

// leave waits for the answer to a polite end: the daemon gives it when the position is written.
func (d *durableConnection) leave(polite bool) (written bool) {
	defer d.ws.Close()
	if !polite || sayGoodbye(d.ws) != nil {
		return false
	}
	for {
		_ = d.ws.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, _, err := d.ws.ReadMessage(); err != nil {
			return websocket.IsCloseError(err, 1000)
		}
	}
}
