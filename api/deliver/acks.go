package deliver

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"

	"cistern/api/clients"
	"cistern/api/durable"
	"cistern/loop"
)

// acks reads the acknowledgements of a consumer, and settles together what was read together. It is
// for the goroutine that reads from the peer.
type acks struct {
	member *durable.Member
	tap    *tapPace // of a client of tap; nil: any other
	ids    []uint64 // read, and not settled yet
}

// add notes the acknowledgement of an event, which settle settles, or settles a gap up to the id
// to.
func (a *acks) add(id, to uint64) {
	if to != 0 {
		a.member.AcknowledgeGap(id, to)
		return
	}
	if a.ids = append(a.ids, id); len(a.ids) >= acksMax {
		a.settle()
	}
}

// settle settles what was added. left is how many events the consumer has still to acknowledge.
func (a *acks) settle() (left int) {
	left = a.member.Acknowledge(a.ids...)
	if a.tap != nil && a.tap.acknowledged(a.ids...) {
		a.member.Signal()
	}
	a.ids = a.ids[:0]
	return left
}

// settleAll settles what was read from the peer so far. It is called before each read from the
// connection, when all that the former read returned is understood. While the consumer has
// many events left, it pauses: the next read then returns many acknowledgements instead of one, and
// the sender fills the room of all of them at once.
func (u *subscriber) settleAll(ctx context.Context) {
	if len(u.acks.ids) == 0 {
		return
	}
	u.alive()
	if u.acks.settle() >= acksPauseMin {
		c := u.conn.(notingConn).Conn
		clients.WakeAt(c, acksWakeBytes)
		loop.Sleep(ctx, acksPause, nil)
		clients.WakeAt(c, 1) // the next read takes what there is, or waits for anything
	}
}

// noting is a response of which the connection calls note before each read, once it is taken over.
type noting struct {
	http.ResponseWriter
	note func()
}

// Hijack takes over the connection.
func (n noting) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := http.NewResponseController(n.ResponseWriter).Hijack()
	return notingConn{conn, n.note}, buf, err
}

type notingConn struct {
	net.Conn
	note func()
}

// Read reads what is next.
func (c notingConn) Read(b []byte) (int, error) {
	c.note()
	return c.Conn.Read(b)
}

// parseAck reads an acknowledgement in one of the two forms that clients write. ok is false for all
// other text, which may be an acknowledgement too.
func parseAck(body []byte) (id uint64, ok bool) {
	body = bytes.TrimSuffix(body, []byte("\n"))
	digits, ok := bytes.CutPrefix(body, []byte(`{"type":"ack","id":`))
	if ok {
		digits, ok = bytes.CutSuffix(digits, []byte(`}`))
	} else if digits, ok = bytes.CutPrefix(body, []byte(`{"id":`)); ok {
		digits, ok = bytes.CutSuffix(digits, []byte(`,"type":"ack"}`))
	}
	const digitsMax = 19 // no number of 19 digits is too large
	if n := len(digits); !ok || n == 0 || n > digitsMax || digits[0] == '0' && n > 1 {
		return 0, false
	}
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		id = id*10 + uint64(c-'0')
	}
	return id, true
}

// readAck reads a message of a consumer of a durable subscription: the acknowledgement of an event,
// or of a gap up to the id to, which is 0 for an event.
func readAck(body []byte) (id, to uint64, err error) {
	var ack struct {
		Type string  `json:"type"`
		ID   *uint64 `json:"id"`
		To   uint64  `json:"to"`
	}
	in := json.NewDecoder(bytes.NewReader(body))
	in.DisallowUnknownFields()
	if err := in.Decode(&ack); err != nil {
		return 0, 0, invalidMessage("it is not an acknowledgement: %w", shorter(err))
	}
	if ack.Type != "ack" || ack.ID == nil {
		return 0, 0, invalidMessage(
			`want {"type":"ack","id":N}, or {"type":"ack","id":N,"to":N} of a gap`)
	}
	return *ack.ID, ack.To, nil
}
