package deliver

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"

	"cistern/api/deliver/format"
	"cistern/api/durable"
	"cistern/api/wire"

	"github.com/gorilla/websocket"
)

// Tap answers GET /channel, as tap does. Its clients consume the durable subscription durable.Tap,
// which is made for the first of them, and share it by account.
func (d *Delivery) Tap(w http.ResponseWriter, r *http.Request) error {
	err := d.channel(w, r)
	var refusal *wire.Refusal
	if !errors.As(err, &refusal) {
		return err
	}
	switch refusal.Name {
	case "Unavailable", "RateLimitExceeded", "Conflict":
		// A client that gets any answer but the handshake's gives up for ever.
		if hangUp(w) {
			d.logger.Info("client of tap turned away; it connects again", slog.Any("err", err))
			return nil
		}
	}
	return err
}

// channel serves a client of tap.
func (d *Delivery) channel(w http.ResponseWriter, r *http.Request) error {
	if !websocket.IsWebSocketUpgrade(r) {
		return upgradeRequired(r)
	}
	sub, err := d.subscriptions.Ensure(r.Context(), durable.Tap,
		durable.Wanted{Start: durable.Start{Oldest: true}, Share: durable.ByDID})
	if err != nil {
		return err
	}
	member, err := sub.Attach()
	if err != nil {
		return err
	}
	defer member.Detach()
	c := &consumer{feed: d.Feed(member, format.Tap), tap: newTapPace()}
	a := &acks{member: member, tap: c.tap}
	p := &protocol{
		messageBytesMax: ackBytesMax,
		locate:          func(context.Context, Log, *subscription) error { return nil },
		message: func(_ int, body []byte) (*change, error) {
			id, ok, err := readTap(body)
			if ok {
				a.add(id, 0)
			}
			return nil, err
		},
		failure:   noFailure,
		breaksOff: true,
	}
	serve := func(ctx context.Context, u *subscriber) error {
		c.subscriber = u
		return c.run(ctx)
	}
	return d.open(w, r, subscription{protocol: p, format: format.Tap, serve: serve, acks: a})
}

// hangUp ends the connection of a request without an answer. It reports whether it could.
func hangUp(w http.ResponseWriter) bool {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// readTap reads a message of a client of tap. Types other than ack are ignored: then ok is false.
func readTap(body []byte) (id uint64, ok bool, err error) {
	var m struct {
		Type string `json:"type"`
		ID   uint64 `json:"id"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return 0, false, invalidMessage("%w", shorter(err))
	}
	return m.ID, m.Type == "ack", nil
}

// loseGap settles a gap, for which tap has no message.
func (c *consumer) loseGap(gap Message) {
	c.logger.Warn("events were deleted before a client of tap acknowledged them; add the "+
		"repositories again to have all their records sent", slog.String("subscription", durable.Tap),
		slog.Uint64("from", gap.ID), slog.Uint64("to", gap.GapTo))
	c.feed.member.Settle(gap.ID)
}
