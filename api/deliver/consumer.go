package deliver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"cistern/api/deliver/format"
	"cistern/api/durable"
	"cistern/filter"
	"cistern/store"

	"golang.org/x/sync/errgroup"
)

// errDropped ends the connection of a subscription that was deleted.
var errDropped = errors.New("the subscription was deleted")

// Durable answers GET /subscriptions/{name}/events.
func (d *Delivery) Durable(w http.ResponseWriter, r *http.Request) error {
	sub, err := d.subscriptions.Find(r.PathValue("name"))
	if err != nil {
		return err
	}
	if err := sub.Attach(); err != nil {
		return err
	}
	defer sub.Detach()
	p := &protocol{
		messageBytesMax: ackBytesMax,
		locate:          func(context.Context, Log, *subscription) error { return nil },
		message:         func(_ int, body []byte) (*change, error) { return nil, readAck(body, sub) },
		failure:         streamProtocol.failure,
	}
	serve := func(ctx context.Context, u *subscriber) error {
		return (&consumer{subscriber: u, sub: sub}).run(ctx)
	}
	return d.open(w, r, subscription{protocol: p, format: d.formats.Cistern(format.Variant{}), serve: serve})
}

// readAck reads a message of a consumer: the acknowledgement of one event.
func readAck(body []byte, sub *durable.Subscription) error {
	var m struct {
		Type string  `json:"type"`
		ID   *uint64 `json:"id"`
	}
	in := json.NewDecoder(bytes.NewReader(body))
	in.DisallowUnknownFields()
	if err := in.Decode(&m); err != nil {
		return invalidMessage("it is not an acknowledgement: %w", shorter(err))
	}
	if m.Type != "ack" || m.ID == nil {
		return invalidMessage(`want {"type":"ack","id":N}`)
	}
	sub.Settle(*m.ID)
	return nil
}

// consumer is the open connection of a durable subscription. It sends a queue of ids:
// the events of the next page that the filter wants, or events to be sent again.
type consumer struct {
	*subscriber
	sub   *durable.Subscription
	queue []uint64
	from  uint64 // the page that the queue was picked from; 0: the events are to be sent again
}

// run sends events and keeps the position, until the connection ends.
func (c *consumer) run(ctx context.Context) error {
	g, inner := errgroup.WithContext(ctx)
	g.Go(func() error { return c.forwardAll(inner) })
	g.Go(func() error { return c.keep(inner) })
	g.Go(func() error { return c.heed(inner) })
	err := g.Wait()
	if serr := c.sub.Save(); serr != nil {
		return serr
	}
	return err
}

// keep writes the position every saveEvery if it has changed, and wakes the connection when
// events are to be sent again.
func (c *consumer) keep(ctx context.Context) error {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-tick.C:
			if err := c.sub.Save(); err != nil {
				return err
			}
			if c.sub.Late(now) {
				c.sub.Signal()
			}
		}
	}
}

// heed wakes the connection when the log grows, and ends it when the subscription is deleted.
func (c *consumer) heed(ctx context.Context) error {
	for {
		changed := c.log.Changed() // before the signal, so that no change is missed
		c.sub.Signal()
		select {
		case <-changed:
		case <-c.sub.Gone():
			return errDropped
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// forwardAll sends whatever can be sent, and waits for acknowledgements and events.
func (c *consumer) forwardAll(ctx context.Context) error {
	now := make(chan struct{})
	close(now)
	pings := time.NewTicker(pingEvery)
	defer pings.Stop()
	for {
		moved, err := c.step(ctx)
		if errors.Is(err, store.ErrOutdatedCursor) {
			moved, err = true, c.sendGap(ctx)
		}
		if err != nil {
			return err
		}
		more := c.sub.Wake()
		if moved {
			more = now
		}
		if err := c.attend(ctx, 0, more, pings.C, nil); err != nil {
			return err
		}
	}
}

// step sends the events of the queue that are on one page. If the queue is empty, it takes what is
// to be sent again, and otherwise the next events of the log.
func (c *consumer) step(ctx context.Context) (moved bool, err error) {
	if len(c.queue) == 0 {
		c.queue, c.from = c.sub.Due(time.Now()), 0
	}
	if len(c.queue) == 0 {
		if moved, err = c.pick(ctx); err != nil || len(c.queue) == 0 {
			return moved, err
		}
	}
	return c.sendQueue(ctx)
}

// pick makes the events of the next page outstanding that the filter wants and the window has room
// for, and puts them in the queue. They are outstanding before they are sent: whatever happens to
// the connection, they are sent again.
func (c *consumer) pick(ctx context.Context) (moved bool, err error) {
	cursor, room := c.sub.Next()
	if room == 0 {
		return false, nil
	}
	pg, err := c.pages.read(ctx, cursor) // only this goroutine moves the next id
	if err != nil || pg.next == cursor {
		return false, err
	}
	c.sub.Take(time.Now(), func(f *filter.Events, room int) (events []durable.Event, next uint64) {
		places, next := pg.pick(nil, f), pg.next
		if len(places) > room {
			places = places[:room]
			next = pg.events[places[room-1]].ID + 1
		}
		for _, i := range places {
			events = append(events, durable.Event{ID: pg.events[i].ID, DID: pg.events[i].DID})
			c.queue = append(c.queue, pg.events[i].ID)
		}
		return events, next
	})
	c.from = cursor
	return true, nil
}

// sendQueue sends the events of the queue that are on its first page. moved is false if the page
// does not reach the first of them yet.
func (c *consumer) sendQueue(ctx context.Context) (moved bool, err error) {
	s := scratches.Get().(*scratch)
	defer s.release()
	var next uint64
	events := 0
	held, err := c.take(ctx, s, func() (err error) {
		next, events, err = c.loadQueue(ctx, s)
		return err
	})
	defer c.release(held)
	if err != nil {
		return false, err
	}
	if err := c.flush(ctx, s, events); err != nil {
		return false, err
	}
	if c.from == 0 {
		c.sub.Resent(events)
	}
	n := 0
	for n < len(c.queue) && c.queue[n] < next {
		n++
	}
	c.queue, c.from = c.queue[n:], 0
	return n > 0, nil
}

// loadQueue puts the frames of the events of the queue that are on its first page into s, and
// returns where the page ends. Events that the page leaves out are hidden, and are settled.
func (c *consumer) loadQueue(ctx context.Context, s *scratch) (next uint64, events int, err error) {
	pg, err := c.queuePage(ctx)
	if err != nil {
		return 0, 0, err
	}
	s.places = c.places(s.places[:0], pg)
	s.frames, events, err = c.pages.frames(ctx, s.frames[:0], pg, c.format, s.places, 0)
	return pg.next, events, err
}

// queuePage returns the page with the first events of the queue.
func (c *consumer) queuePage(ctx context.Context) (*sharedPage, error) {
	if c.from != 0 {
		return c.pages.read(ctx, c.from)
	}
	first, last := c.queue[0], c.queue[0]
	for _, id := range c.queue {
		if id-last > denseIDs {
			break
		}
		last = id
	}
	return c.pages.some(ctx, first, last-first+1)
}

// places appends to dst the places of the events of the queue that are still outstanding.
func (c *consumer) places(dst []int32, pg *sharedPage) []int32 {
	now, i := time.Now(), 0
	for _, id := range c.queue {
		if id >= pg.next {
			break
		}
		for i < len(pg.events) && pg.events[i].ID < id {
			i++
		}
		if i == len(pg.events) || pg.events[i].ID != id {
			c.sub.Settle(id) // its account was hidden
		} else if c.sub.Again(id, pg.events[i].DID, now) {
			dst = append(dst, int32(i))
		}
	}
	return dst
}

// sendGap gives up the events that the log has lost, and sends a message in their place, which the
// consumer acknowledges like an event.
func (c *consumer) sendGap(ctx context.Context) error {
	tail, err := oldest(ctx, c.log, 0)
	if err != nil {
		return err
	}
	from, ok := c.sub.Lost(tail, time.Now())
	c.queue = nil
	if !ok {
		return nil
	}
	return c.send(ctx, c.format.Append(nil, gapMessage(from, tail-1)))
}

// gapMessage says that events from id from to id to were lost before they were acknowledged.
func gapMessage(from, to uint64) []byte {
	out := strconv.AppendUint([]byte(`{"id":`), from, 10)
	out = strconv.AppendUint(append(out, `,"type":"gap","from":`...), from, 10)
	return append(strconv.AppendUint(append(out, `,"to":`...), to, 10), '}')
}
