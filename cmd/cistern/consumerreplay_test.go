package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"cistern/store"

	"golang.org/x/sync/errgroup"
)

// replayer is the consumer of a durable subscription that begins with a snapshot, and begins anew
// with one after a gap, after it has changed the filter, and now and then. It applies and
// acknowledges as a subscriber does.
type replayer struct {
	w     *deliveries
	name  string
	by    transport
	conns int // connections at a time, at most

	rng     *rand.Rand // of session
	made    bool
	pending *wish // a filter that the daemon has perhaps

	mu      sync.Mutex // guards what follows
	want    wish
	replays bool // it has to begin anew
	state   subscriberState
	saved   subscriberState // what a crash leaves: written before each acknowledgement
	begin   uint64          // the log goes on there, at least
	next    uint64          // as the end of the snapshot says; 0: it did not come
	got     map[uint64]bool // events since the end
	highest uint64          // of these
	names   map[uint64]string
	written map[uint64]bool // acknowledged, and never to come again
	done    map[string]bool // records of this snapshot whose acknowledgement was written
}

func newReplayer(w *deliveries, name string, rng *rand.Rand, conns int) *replayer {
	c := &replayer{w: w, name: name, by: &durableSocket{w, name}, conns: conns, rng: rng,
		want: w.random(rng, false), names: map[uint64]string{}, written: map[uint64]bool{}}
	c.anew(0)
	return c
}

// anew forgets what is held. mu is held.
func (c *replayer) anew(begin uint64) {
	c.state = subscriberState{held: fold{}, applied: map[string]uint64{}}
	c.saved, c.begin, c.next, c.highest = c.state.clone(), begin, 0, 0
	c.got, c.done, c.replays = map[uint64]bool{}, map[string]bool{}, false
}

func (c *replayer) restart() {}
func (c *replayer) at() uint64 {
	return max(c.begin, c.highest)
}
func (c *replayer) result() (fold, wish, bool) { return c.state.held, c.want, c.want.folds() }
func (c *replayer) mistake(f string, a ...any) error {
	return fmt.Errorf("%s: "+f, append([]any{c.name}, a...)...)
}

// put makes the subscription, or gives it a filter. Then it is to begin anew.
func (c *replayer) put(ctx context.Context, want wish) (next uint64, err error) {
	body := map[string]any{"filter": want, "start": "snapshot"}
	if c.conns > 1 {
		body["share"] = "did"
	}
	var answer struct{ Next uint64 }
	_, err = c.w.request(ctx, "PUT", "/subscriptions/"+c.name, body, &answer)
	return answer.Next, err
}

// prepare makes the subscription, perhaps changes its filter, and replays it if that is due.
func (c *replayer) prepare(ctx context.Context) error {
	if !c.made {
		next, err := c.put(ctx, c.want)
		if err != nil {
			return err
		}
		c.made, c.begin = true, next
	}
	if c.pending == nil && c.rng.IntN(15) == 0 && !c.w.frozen.Load() {
		other, _ := c.w.other(c.rng, c.want, false)
		c.pending = &other
	}
	if c.pending != nil {
		c.replays = true // also if the answer is lost
		if _, err := c.put(ctx, *c.pending); err != nil {
			return err
		}
		c.want, c.pending = *c.pending, nil
	}
	if c.rng.IntN(25) == 0 && !c.w.frozen.Load() {
		c.replays = true
	}
	if !c.replays {
		return nil
	}
	var answer struct {
		Next     uint64
		Snapshot *struct{ Records uint64 }
	}
	path := "/subscriptions/" + c.name + "/replay"
	if _, err := c.w.request(ctx, "POST", path, map[string]any{"start": "snapshot"}, &answer); err != nil {
		return err
	}
	if answer.Snapshot == nil || answer.Snapshot.Records != 0 {
		return c.mistake("replayed: %+v", answer)
	}
	c.w.ledger.count("replays with a snapshot", 1)
	c.w.ledger.tell(c.name, "filter %+v, replayed with a snapshot before %d", c.want, answer.Next)
	c.anew(answer.Next)
	return nil
}

// session consumes over some connections, and may crash.
func (c *replayer) session(ctx context.Context) error {
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

// replaying is one connection of a replayer.
type replaying struct {
	*replayer
	conn     acknowledged
	rng      *rand.Rand
	position *settledBefore
	unacked  []receipt
	sent     []uint64 // acknowledged here
	last     map[string]uint64
	logged   map[string]uint64
}

func (c *replayer) attach(ctx context.Context, rng *rand.Rand) (*replaying, error) {
	position := c.w.position(c.name)
	a, err := c.by.dial(ctx)
	return &replaying{replayer: c, conn: a, rng: rng, position: position,
		last: map[string]uint64{}, logged: map[string]uint64{}}, err
}

// connection reads some messages.
func (c *replayer) connection(ctx context.Context, rng *rand.Rand, n int) (err error) {
	k, err := c.attach(ctx, rng)
	if err != nil {
		return err
	}
	for ; n > 0 && err == nil && !c.w.frozen.Load(); n-- {
		if rng.IntN(50) == 0 {
			pause(ctx, time.Duration(rng.IntN(60))*time.Millisecond)
		}
		err = k.receive(time.Duration(10+rng.IntN(300))*time.Millisecond, false)
	}
	k.finish(err)
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// receive takes in one message, and perhaps acknowledges. The error is errEnough after a gap.
func (k *replaying) receive(wait time.Duration, all bool) error {
	events, err := k.conn.next(wait)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range events {
		if err := k.take(&events[i]); errors.Is(err, errEnough) {
			return err
		} else if err != nil {
			return k.mistake("%w", err)
		}
	}
	if !all && k.rng.IntN(10) > 0 {
		return nil
	}
	return k.acknowledge(all)
}

// take takes in one message. mu is held.
func (k *replaying) take(ev *delivered) error {
	switch {
	case ev.what == "error", ev.what == "outdated":
		return fmt.Errorf("the connection ends: %s %s", ev.what, ev.text)
	case k.replays:
		return errEnough
	case ev.what == "gap":
		k.w.ledger.count("gaps", 1)
		k.replays = true
		return errEnough
	case k.written[ev.id] || k.position.settled(ev.id):
		return fmt.Errorf("%d comes again, and its acknowledgement was written: %s", ev.id, ev.identity())
	}
	k.unacked = append(k.unacked, receipt{id: ev.id})
	switch ev.what {
	case "snapshot_end":
		if ev.to < k.begin {
			return fmt.Errorf("the log goes on at %d, not %d", ev.to, k.begin)
		}
		k.w.ledger.count("snapshots of subscriptions", 1)
		k.next = ev.to
		return k.number(ev.id, "end")
	case "snapshot":
		return k.record(ev)
	}
	return k.event(ev)
}

// number checks that a number has one meaning. mu is held.
func (k *replaying) number(n uint64, name string) error {
	if was, ok := k.names[n]; ok && was != name || n <= store.NumbersFrom {
		return fmt.Errorf("%d is the number of %s, and was that of %q", n, name, was)
	}
	k.names[n] = name
	return nil
}

// record takes in a record of the snapshot. mu is held.
func (k *replaying) record(ev *delivered) error {
	name := ev.did + "/" + ev.path()
	switch last := k.last[ev.did]; {
	case ev.id <= last:
		return fmt.Errorf("record %d of %s comes after %d", ev.id, ev.did, last)
	case k.done[name]:
		return fmt.Errorf("record %s comes again as %d, and its acknowledgement was written", name, ev.id)
	case !k.want.wants(ev):
		return fmt.Errorf("record %s is not wanted: %+v", name, k.want)
	}
	k.last[ev.did] = ev.id
	k.state.held.take(ev)
	return k.number(ev.id, name)
}

// event takes in an event of the log. mu is held.
func (k *replaying) event(ev *delivered) error {
	switch last := k.logged[ev.did]; {
	case k.next == 0 || ev.id < k.next:
		return fmt.Errorf("event %d comes before the end of the snapshot (%d)", ev.id, k.next)
	case ev.id <= last:
		return fmt.Errorf("event %d of %s comes after %d", ev.id, ev.did, last)
	case !k.want.wants(ev):
		return fmt.Errorf("event %d is not wanted: %s", ev.id, ev.identity())
	}
	k.logged[ev.did], k.got[ev.id] = ev.id, true
	k.highest = max(k.highest, ev.id)
	if ev.id > k.state.applied[ev.did] {
		k.state.applied[ev.did] = ev.id
		k.state.held.take(ev)
	}
	return k.w.ledger.note(ev)
}

// acknowledge acknowledges some of what is applied, in any order. mu is held.
func (k *replaying) acknowledge(all bool) error {
	k.saved = k.state.clone()
	k.rng.Shuffle(len(k.unacked), func(i, j int) {
		k.unacked[i], k.unacked[j] = k.unacked[j], k.unacked[i]
	})
	n := len(k.unacked)
	if !all {
		n = k.rng.IntN(n + 1)
	}
	for _, r := range k.unacked[:n] {
		if !all && k.rng.IntN(30) == 0 {
			continue // forgotten
		}
		k.sent = append(k.sent, r.id)
		if err := k.conn.ack(r); err != nil {
			return err
		}
	}
	k.unacked = k.unacked[n:]
	return nil
}

// finish ends the connection.
func (k *replaying) finish(err error) {
	written := k.conn.leave((err == nil || errors.Is(err, errEnough)) && k.rng.IntN(2) == 0)
	k.mu.Lock()
	defer k.mu.Unlock()
	if written {
		k.w.ledger.count("clean ends", 1)
		for _, id := range k.sent {
			k.written[id] = true
			if name, ok := k.names[id]; ok && !k.replays {
				k.done[name] = true
			}
		}
	}
}

// settle acknowledges everything until nothing is left.
func (c *replayer) settle(ctx context.Context) error {
	if err := c.prepare(ctx); err != nil {
		return err
	}
	k, err := c.attach(ctx, c.rng)
	if err != nil {
		return err
	}
	inner, cancel := context.WithCancel(ctx)
	g, inner := errgroup.WithContext(inner)
	g.Go(func() error {
		defer k.conn.leave(false)
		return c.drained(inner)
	})
	g.Go(func() error {
		defer cancel()
		for {
			switch err := k.receive(time.Minute, true); {
			case errors.Is(err, errAway):
				return nil // drained
			case errors.Is(err, errEnough):
				return errAway // after a gap: begin anew
			case err != nil:
				return err
			}
		}
	})
	if err := g.Wait(); err != nil {
		return err
	}
	if c.next == 0 { // what a former settle has drained
		return c.mistake("the snapshot has not ended")
	}
	c.w.ledger.pass(passage{c.name, c.next, c.w.head + 1, []wish{c.want}, c.got})
	return nil
}

// drained waits until the subscription is at the head, with nothing outstanding.
func (c *replayer) drained(ctx context.Context) error {
	p := patience{limit: time.Minute}
	for {
		var st struct {
			Lag, Outstanding uint64
			Snapshot         *struct{ Records uint64 }
		}
		status, err := c.w.request(ctx, "GET", "/subscriptions/"+c.name, nil, &st)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil || status != http.StatusOK:
			return c.mistake("status %d: %w", status, err)
		case st.Lag == 0 && st.Outstanding == 0 && st.Snapshot == nil:
			return nil
		case p.ends(st):
			return c.mistake("not drained: %+v", st)
		}
		pause(ctx, 5*time.Millisecond)
	}
}

// settledNumber reports whether a number was acknowledged before the position was written.
func (p *settledBefore) settledNumber(n uint64) bool {
	if n > p.Numbered || p.Snapshot != nil && p.Snapshot.Last == n {
		return false
	}
	return p.Snapshot == nil || !slices.ContainsFunc(p.Snapshot.Outstanding,
		func(r store.NumberedRecord) bool { return r.Number == n })
}
