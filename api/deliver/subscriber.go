package deliver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"cistern/api/deliver/wsframe"
	"cistern/api/wire"
	"cistern/store"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"
)

// Why a stream ends, besides the errors of the log and errMessage.
var (
	errPeer    = errors.New("peer closed the stream or broke off")
	errClosed  = fmt.Errorf("%w: it sent a close frame", errPeer)
	errTooSlow = errors.New("consumer did not read for too long")
	errTooLong = errors.New("invalid message")
)

// subscriber is one open stream. Only its own goroutine writes to conn, whole frames at a time.
// (The WebSocket library writes only when the peer violates the protocol, which ends the stream.)
type subscriber struct {
	*Delivery
	subscription
	client  netip.Prefix
	ws      *websocket.Conn
	conn    net.Conn
	pongs   chan string  // pings to answer
	changes chan *change // the newest that the consumer asked for

	filterHeld int64  // bytes reserved for the filter; of the goroutine that sends, see setFilter
	cut        []byte // the rest of a frame that a timeout cut in two

	short [64]byte // a message being read, or its beginning; of listen

	mu      sync.Mutex
	leaving bool // mu guards: farewell has set the last read deadline
}

// run serves the stream until it ends, and closes it.
func (u *subscriber) run(ctx context.Context) {
	stream, end := context.WithCancelCause(ctx)
	// A write must not outlast the stream by more than its farewell.
	stop := context.AfterFunc(stream, func() {
		_ = u.conn.SetWriteDeadline(time.Now().Add(farewellTimeout))
	})
	defer stop()
	var g errgroup.Group
	g.Go(func() error {
		u.listen(stream, end)
		return nil
	})
	g.Go(func() error {
		defer end(nil)
		err := u.outdated(u.serve(stream, u))
		if ctx.Err() == nil && errors.Is(err, context.Canceled) {
			err = context.Cause(stream) // the error of listen
		}
		u.farewell(err)
		u.watch(err)
		return nil
	})
	_ = g.Wait() // farewell has reported the error
}

// listen reads from the peer: changes, pings, pongs, the close frame. It ends the stream at the
// first message that is not accepted, and then goes on reading: what is left unread would break
// the connection before the farewell arrives.
func (u *subscriber) listen(ctx context.Context, end context.CancelCauseFunc) {
	u.alive()
	u.ws.SetPongHandler(func(string) error { u.alive(); return nil })
	u.ws.SetCloseHandler(func(int, string) error { return nil }) // farewell answers
	u.ws.SetPingHandler(func(text string) error {
		u.alive()
		select {
		case u.pongs <- text:
		default: // one answer is enough for two pings
		}
		return nil
	})
	for {
		kind, message, err := u.ws.NextReader()
		if err != nil {
			u.endBy(lost(err), end)
			return
		}
		if ctx.Err() != nil {
			continue
		}
		c, err := u.receive(ctx, kind, message)
		if err == nil && c != nil {
			err = u.ask(c)
		}
		if err != nil {
			u.endBy(err, end)
		}
	}
}

// endBy ends the stream with an error of the peer. What it acknowledged before counts.
func (u *subscriber) endBy(err error, end context.CancelCauseFunc) {
	if u.acks != nil {
		u.acks.settle()
	}
	end(err)
}

// lost returns why nothing more can be read from the peer.
func lost(err error) error {
	var sent *websocket.CloseError
	if errors.As(err, &sent) && sent.Code != websocket.CloseAbnormalClosure {
		return errClosed
	}
	return errPeer
}

// receive reads one message. While a message of 1 MiB is being understood it takes some 50 MiB, so
// that only messagesMax are understood at a time, and one of each client.
func (u *subscriber) receive(ctx context.Context, kind int, r io.Reader) (*change, error) {
	most := u.protocol.messageBytesMax
	if most == 0 {
		return u.protocol.message(kind, nil)
	}
	body, err := u.body(r, most+1)
	switch {
	case err != nil:
		return nil, errPeer
	case int64(len(body)) > most:
		return nil, fmt.Errorf("%w: it has more than %d bytes", errTooLong, most)
	}
	if u.acks != nil {
		if id, ok := parseAck(body); ok {
			u.acks.add(id, 0)
			return nil, nil
		}
	}
	u.alive()
	if err := u.messages.Acquire(ctx, u.client, 1); err != nil {
		return nil, err
	}
	defer u.messages.Release(u.client, 1)
	return u.protocol.message(kind, body)
}

// body reads up to most bytes of a message. It is valid until the next call.
func (u *subscriber) body(r io.Reader, most int64) ([]byte, error) {
	for n := 0; ; {
		if n == len(u.short) {
			rest, err := io.ReadAll(io.LimitReader(r, most-int64(n)))
			return append(u.short[:n:n], rest...), err
		}
		more, err := r.Read(u.short[n:])
		if n += more; errors.Is(err, io.EOF) {
			return u.short[:n], nil
		} else if err != nil {
			return nil, err
		}
	}
}

// alive extends the read deadline after a frame from the peer.
func (u *subscriber) alive() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.leaving {
		// a closed connection fails in listen
		_ = u.conn.SetReadDeadline(time.Now().Add(peerTimeout))
	}
}

// leave gives the peer until deadline to answer.
func (u *subscriber) leave(deadline time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.leaving = true
	_ = u.conn.SetReadDeadline(deadline)
}

// begin waits for the first change if the consumer wants to begin with it, checks the cursor and
// follows the log from it.
func (u *subscriber) begin(ctx context.Context) error {
	if u.subscription.epoch != "" && u.subscription.epoch != u.Delivery.epoch {
		again := "begin at cursor 0"
		if u.variant.Tokens {
			again = "begin a new snapshot"
		}
		return wire.Refuse("OutdatedCursor",
			"the cursor is of epoch %s and this log of epoch %s: the store was created anew, so %s",
			wire.Echo(u.subscription.epoch), u.Delivery.epoch, again)
	}
	pings := time.NewTicker(pingEvery)
	defer pings.Stop()
	if u.waits {
		if err := u.attend(ctx, u.cursor, nil, pings.C, u.changes); err != nil {
			return err
		}
		if !u.given {
			u.cursor = u.log.Head() + 1
		}
	}
	if u.first != nil {
		if err := u.send(ctx, u.message(u.first)); err != nil {
			return err
		}
	}
	if u.snapshot != nil {
		if err := u.sendSnapshot(ctx, pings.C); err != nil {
			return err
		}
	}
	cursor, err := oldest(ctx, u.log, u.cursor)
	if u.clamps && errors.Is(err, store.ErrOutdatedCursor) {
		cursor, err = oldest(ctx, u.log, 0)
	}
	if err != nil {
		return err
	}
	return u.follow(ctx, cursor, pings.C)
}

// oldest checks a cursor, and returns the id to begin at: for cursor 0, the oldest event kept.
func oldest(ctx context.Context, log Log, cursor uint64) (uint64, error) {
	return log.ReadLog(ctx, cursor, 0, func(*store.Event) error { return nil })
}

// follow is replay and tail: it sends pages up to the head, then waits for the next change.
func (u *subscriber) follow(ctx context.Context, cursor uint64, pings <-chan time.Time) error {
	now := make(chan struct{})
	close(now)
	for {
		changed := u.log.Changed() // before reading, so that no change is missed in between
		next, err := u.forward(ctx, cursor)
		if err != nil {
			return err
		}
		more := changed
		if next != cursor {
			more = now
		}
		cursor = next
		if err := u.attend(ctx, cursor, more, pings, u.changes); err != nil {
			return err
		}
	}
}

// scratch is the memory of a send, shared by subscribers.
type scratch struct {
	places []int32
	frames [][]byte
	bytes  []byte
	arrays []byte // the frames of a stream with batches
	array  []byte // one of them before compression
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// scratchBytesMax bounds the memory that is used again.
const scratchBytesMax = 256 << 10

func (s *scratch) release() {
	clear(s.frames)
	s.frames, s.places = s.frames[:0], s.places[:0]
	if cap(s.bytes)+cap(s.arrays)+cap(s.array) <= scratchBytesMax {
		scratches.Put(s)
	}
}

// forward sends what the filter wants of the page at cursor, if there is one, and returns the id to
// go on from.
func (u *subscriber) forward(ctx context.Context, cursor uint64) (next uint64, err error) {
	s := scratches.Get().(*scratch)
	defer s.release()
	events := 0
	held, err := u.take(ctx, s, func() (err error) {
		next, events, err = u.load(ctx, cursor, s)
		return err
	})
	defer u.release(held)
	if err != nil {
		return 0, err
	}
	return next, u.flush(ctx, s, events)
}

// flush sends the frames in s, which have that many events.
func (u *subscriber) flush(ctx context.Context, s *scratch, events int) error {
	if len(s.frames) == 0 {
		return nil
	}
	if u.batch > 0 {
		u.makeArrays(s)
	}
	frames := s.frames[0]
	if len(s.frames) > 1 {
		s.bytes = s.bytes[:0]
		for _, f := range s.frames {
			s.bytes = append(s.bytes, f...)
		}
		clear(s.frames) // their page need not stay in memory while they are sent
		frames = s.bytes
	}
	if err := u.send(ctx, frames); err != nil {
		return err
	}
	u.alive()
	u.metrics.events.Add(float64(events))
	u.metrics.bytes.Add(float64(len(frames)))
	return nil
}

// load puts the frames to send of the page at cursor into s.
func (u *subscriber) load(
	ctx context.Context, cursor uint64, s *scratch,
) (next uint64, events int, err error) {
	pg, err := u.pages.wanted(ctx, cursor, u.filter)
	if err != nil {
		return 0, 0, err
	}
	s.places = pg.pick(s.places[:0], u.filter)
	s.frames, events, err = u.pages.frames(ctx, s.frames[:0], pg, u.format, s.places, u.most)
	return pg.next, events, err
}

// take has load put frames into s, and reserves the bytes of a long page. Without room it drops the
// page and loads it again once there is, so that waiting costs no memory.
func (u *subscriber) take(
	ctx context.Context, s *scratch, load func() error,
) (held int64, err error) {
	for {
		if err := load(); err != nil {
			return held, err
		}
		n := u.long(s.frames)
		if n <= held || held == 0 && u.held.TryAcquire(u.client, n) {
			return max(n, held), nil
		}
		clear(s.frames)
		s.bytes = nil
		u.release(held)
		if err := u.held.Acquire(ctx, u.client, n); err != nil {
			return 0, err
		}
		held = n
	}
}

// release releases the bytes of a long page.
func (u *subscriber) release(held int64) {
	if held > 0 {
		u.held.Release(u.client, held)
	}
}

// long returns how many bytes are to be reserved: none for what a usual page becomes.
func (u *subscriber) long(frames [][]byte) int64 {
	n := 0
	for _, f := range frames {
		n += len(f)
	}
	if n <= 2*u.pages.pageBytes {
		return 0
	}
	return min(int64(n), u.held.Most())
}

// attend answers pings and changes, and sends pings, until the log has more, or the stream need not
// wait any more.
func (u *subscriber) attend(
	ctx context.Context, cursor uint64, more <-chan struct{}, pings <-chan time.Time,
	changes <-chan *change,
) error {
	for {
		var answer []byte
		select {
		case <-more:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case text := <-u.pongs:
			answer = wsframe.AppendControl(nil, wsframe.Pong, text)
		case <-pings:
			answer = wsframe.AppendControl(nil, wsframe.Ping, "")
		case c := <-changes:
			u.setFilter(c)
			if u.waits {
				u.waits = false
				return nil
			}
			if u.protocol.confirm == nil {
				continue
			}
			answer = u.message(u.protocol.confirm(cursor))
		}
		if err := u.send(ctx, answer); err != nil {
			return err
		}
	}
}

// send writes whole frames with one call.
func (u *subscriber) send(ctx context.Context, frames []byte) error {
	if err := u.conn.SetWriteDeadline(time.Now().Add(u.writeTimeout)); err != nil {
		return errPeer
	}
	if err := ctx.Err(); err != nil { // it ended before the deadline was set anew
		return err
	}
	n, err := u.conn.Write(frames)
	if err == nil {
		return nil
	}
	u.cut = append([]byte(nil), frames[n:wsframe.End(frames, n)]...)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errTooSlow
	}
	return errPeer
}

// farewell tells the peer why the stream ends, and waits shortly for its answer.
func (u *subscriber) farewell(err error) {
	reason, frames := u.closing(err)
	u.metrics.ended.WithLabelValues(reason).Inc()
	if reason == "internal" {
		u.logger.Error("a stream ended by an internal error", slog.Any("err", err))
	} else {
		u.logger.Debug("stream ended", slog.String("reason", reason), slog.Any("err", err))
	}
	deadline := time.Now().Add(farewellTimeout)
	silent := u.protocol.breaksOff && !errors.Is(err, errClosed)
	if !silent && u.conn.SetWriteDeadline(deadline) == nil {
		if _, err := u.conn.Write(append(u.cut[:len(u.cut):len(u.cut)], frames...)); err == nil &&
			reason != "peer" {
			u.leave(deadline)
			return
		}
	}
	_ = u.conn.Close() // ends listen at once
}

// closing returns the frames that end a stream.
func (u *subscriber) closing(err error) (reason string, frames []byte) {
	const normal, goingAway, policy, tooBig, internal, restart = 1000, 1001, 1008, 1009, 1011, 1012
	switch {
	case errors.Is(err, errPeer):
		return "peer", wsframe.AppendClose(nil, normal, "")
	case errors.Is(err, errMessage):
		return "message", u.failed(policy, "InvalidRequest", err.Error())
	case errors.Is(err, errTooLong):
		return "message", u.failed(tooBig, "InvalidRequest", err.Error())
	case errors.Is(err, ErrDropped):
		return "dropped", u.failed(policy, "NotFound", err.Error())
	case errors.Is(err, ErrReplayed):
		return "replayed", wsframe.AppendClose(nil, restart, err.Error())
	case errors.Is(err, context.Canceled):
		return "shutdown", wsframe.AppendClose(nil, goingAway, "going away")
	case errors.Is(err, errTooSlow):
		return "slow", u.failed(policy, "ConsumerTooSlow", err.Error())
	}
	name, message := u.refusal(err)
	if name != "FutureCursor" && name != "OutdatedCursor" {
		return "internal", u.failed(internal, name, message)
	}
	return "cursor", u.failed(policy, name, message)
}

// failed returns the frames that name an error.
func (u *subscriber) failed(code uint16, name, message string) []byte {
	if m := u.protocol.failure(name, message); m != nil {
		return wsframe.AppendClose(u.message(m), code, name)
	}
	return wsframe.AppendClose(nil, code, message)
}

// failed returns the message that names an error, typed by a field of that name.
func failed(field, name, message string) []byte {
	out := append(append([]byte(`{"`), field...), `":"error","error":`...)
	out = wire.AppendString(out, name)
	out = wire.AppendString(append(out, `,"message":`...), message)
	return append(out, '}')
}
