package deliver

import (
	"context"
	"errors"
	"math"
	"net/http"
	"time"

	"cistern/api/deliver/format"
	"cistern/store"

	"golang.org/x/sync/errgroup"
)

// Durable answers GET /subscriptions/{name}/events.
func (d *Delivery) Durable(w http.ResponseWriter, r *http.Request) error {
	sub, err := d.subscriptions.Find(r.PathValue("name"))
	if err != nil {
		return err
	}
	member, err := sub.Attach()
	if err != nil {
		return err
	}
	defer member.Detach()
	a := &acks{member: member}
	p := &protocol{
		messageBytesMax: ackBytesMax,
		locate:          func(context.Context, Log, *subscription) error { return nil },
		message: func(_ int, body []byte) (*change, error) {
			id, to, err := readAck(body)
			if err == nil {
				a.add(id, to)
			}
			return nil, err
		},
		failure: streamProtocol.failure,
	}
	serve := func(ctx context.Context, u *subscriber) error {
		return (&consumer{subscriber: u, feed: d.Feed(member, u.format)}).run(ctx)
	}
	return d.open(w, r, subscription{protocol: p, format: d.formats.Cistern(format.Variant{}),
		serve: serve, acks: a})
}

// consumer is the open connection of a durable subscription. The messages of its feed go out as the
// frames of a page, which it shares with all streams that send the same events.
type consumer struct {
	*subscriber
	feed *Feed
	tap  *tapPace // of a client of tap; nil: any other
}

// run sends events and keeps the position, until the connection ends.
func (c *consumer) run(ctx context.Context) error {
	g, inner := errgroup.WithContext(ctx)
	g.Go(func() error { return c.forwardAll(inner) })
	g.Go(func() error { return c.feed.Run(inner) })
	return g.Wait()
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
			moved, err = true, c.feed.lose(ctx)
		}
		if err != nil {
			return err
		}
		more := c.feed.member.Wake()
		if moved {
			more = now
		}
		if err := c.attend(ctx, 0, more, pings.C, nil); err != nil {
			return err
		}
	}
}

// step sends the items of the feed that are on one page. moved is false if there is nothing to send
// yet.
func (c *consumer) step(ctx context.Context) (moved bool, err error) {
	most := math.MaxInt
	if c.tap != nil {
		if most = c.tap.room(time.Now()); most == 0 {
			return false, nil
		}
	}
	moved, err = c.feed.fill(ctx, most)
	if err != nil || len(c.feed.items) == 0 {
		return moved, err
	}
	switch kindOf(c.feed.items[0]) {
	case logEvent:
		return c.sendItems(ctx)
	case currentRecord:
		return true, c.sendRecords(ctx)
	}
	for _, m := range c.feed.takeMark() {
		if c.tap != nil {
			c.loseGap(m)
			continue
		}
		err = c.send(ctx, c.format.Append(nil, m.Body))
	}
	return true, err
}

// sendItems sends the items that are on the first page with one. moved is false if the page does
// not reach the first of them yet.
func (c *consumer) sendItems(ctx context.Context) (moved bool, err error) {
	s := scratches.Get().(*scratch)
	defer s.release()
	var n, events, again int
	held, err := c.take(ctx, s, func() error {
		pg, err := c.feed.page(ctx)
		if err != nil {
			return err
		}
		s.places, n, again = c.feed.places(s.places[:0], pg)
		s.frames, events, err = c.pages.frames(ctx, s.frames[:0], pg, c.format, s.places, 0)
		if err == nil && (c.tap != nil || events < len(s.places)) {
			c.sending(pg, s.places)
		}
		return err
	})
	defer c.release(held)
	if err != nil {
		return false, err
	}
	if err := c.flush(ctx, s, events); err != nil {
		return false, err
	}
	c.feed.member.Resent(again)
	c.feed.items = c.feed.items[n:]
	return n > 0, nil
}

// sending counts the events at some places of a page that are about to be sent, and settles the
// others, which the format leaves out: they would be sent again for ever.
func (c *consumer) sending(pg *sharedPage, places []int32) {
	in, out := pg.divide(c.format, places)
	if len(out) > 0 {
		c.feed.member.Settle(out...)
	}
	if c.tap != nil {
		c.tap.send(in, time.Now())
	}
}
