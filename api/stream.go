package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"time"

	"cistern/api/clients"
	"cistern/api/wire"
	"cistern/store"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

// streams serves /stream.
type streams struct {
	log          Log
	epoch        string
	pages        *pages
	places       *clients.Places     // of subscribers
	slots        *semaphore.Weighted // one for each subscriber, for the end of Serve to wait for
	held         *clients.Turns      // one for each byte of a long page that is being sent
	max          int64
	writeTimeout time.Duration
	logger       *slog.Logger
	metrics      *metrics
	watch        func(error) // called with every error that ended a stream
}

// serve answers GET /stream.
func (s *streams) serve(w http.ResponseWriter, r *http.Request) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	cursor, given, err := q.uint64("cursor")
	if err != nil {
		return err
	}
	if !websocket.IsWebSocketUpgrade(r) {
		return wire.Refuse("UpgradeRequired", "/stream is a WebSocket: connect with ws://")
	}
	client := clients.Of(r.RemoteAddr)
	if !s.places.Take(client) {
		if !s.places.Full() {
			return wire.Refuse("RateLimitExceeded", "your address has as many of the %d streams as one client may have", s.max)
		}
		return wire.Refuse("Unavailable", "all %d places for subscribers are taken", s.max)
	}
	defer s.places.Give(client)
	if !s.slots.TryAcquire(1) {
		return wire.Refuse("Unavailable", "the server is about to stop")
	}
	defer s.slots.Release(1)
	s.metrics.subscribers.Inc()
	defer s.metrics.subscribers.Dec()
	if !given {
		// Before the handshake, so that its answer promises every event published from then on.
		cursor = s.log.Head() + 1
	}
	upgrader := websocket.Upgrader{
		HandshakeTimeout: s.writeTimeout,
		CheckOrigin:      func(*http.Request) bool { return true }, // public and read-only
		Error: func(w http.ResponseWriter, _ *http.Request, status int, reason error) {
			wire.WriteJSON(w, status, wire.ErrorBody{Error: "InvalidRequest", Message: reason.Error()})
		},
	}
	ws, err := upgrader.Upgrade(w, r, http.Header{"Cistern-Epoch": {s.epoch}})
	if err != nil {
		return nil // answered
	}
	u := &subscriber{streams: s, client: client, ws: ws, conn: ws.NetConn(), pongs: make(chan string, 1)}
	u.run(r.Context(), cursor, q.text("epoch"))
	_ = ws.Close() // farewell may have closed it already
	return nil
}

// Why a stream ends, besides the errors of the log.
var (
	errPeer    = errors.New("peer closed the stream or broke off")
	errTalk    = errors.New("peer sent a message, and streams take none")
	errTooSlow = errors.New("consumer did not read for too long")
)

// subscriber is one open stream. Only its own goroutine writes to conn, whole frames at a time.
// (The WebSocket library writes only when the peer violates the protocol, which ends the stream.)
type subscriber struct {
	*streams
	client netip.Prefix
	ws     *websocket.Conn
	conn   net.Conn
	pongs  chan string // pings to answer
	cut    []byte      // the rest of a frame that a timeout cut in two

	mu      sync.Mutex
	leaving bool // mu guards: farewell has set the last read deadline
}

// run serves the stream until it ends, and closes it.
func (u *subscriber) run(ctx context.Context, cursor uint64, epoch string) {
	g, peer := errgroup.WithContext(ctx)
	// A write must not outlast the stream by more than its farewell.
	stop := context.AfterFunc(peer, func() { _ = u.conn.SetWriteDeadline(time.Now().Add(farewellTimeout)) })
	defer stop()
	g.Go(u.listen)
	g.Go(func() error {
		err := u.open(peer, cursor, epoch)
		if ctx.Err() == nil && errors.Is(err, context.Canceled) {
			err = context.Cause(peer) // the error of listen
		}
		u.farewell(err)
		u.watch(err)
		return err
	})
	_ = g.Wait() // farewell has reported the error
}

// listen reads from the peer: pings, pongs, the close frame.
func (u *subscriber) listen() error {
	u.alive()
	u.ws.SetReadLimit(inboundBytesMax)
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
	if _, _, err := u.ws.NextReader(); err != nil {
		return errPeer
	}
	return errTalk
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

// open checks the cursor and follows the log from it.
func (u *subscriber) open(ctx context.Context, cursor uint64, epoch string) error {
	if epoch != "" && epoch != u.epoch {
		return wire.Refuse("OutdatedCursor", "the cursor is of epoch %s and this log of epoch %s: the store was created anew, so begin at cursor 0", wire.Echo(epoch), u.epoch)
	}
	// The answer is where to begin: for cursor 0, the oldest event kept.
	cursor, err := u.log.ReadLog(ctx, cursor, 0, func(*store.Event) error { return nil })
	if err != nil {
		return err
	}
	return u.follow(ctx, cursor)
}

// follow is replay and tail: it sends pages up to the head, then waits for the next change.
func (u *subscriber) follow(ctx context.Context, cursor uint64) error {
	pings := time.NewTicker(pingEvery)
	defer pings.Stop()
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
		if err := u.attend(ctx, more, pings.C); err != nil {
			return err
		}
	}
}

// forward sends the page at cursor, if there is one, and returns the id to go on from.
func (u *subscriber) forward(ctx context.Context, cursor uint64) (next uint64, err error) {
	pg, held, err := u.take(ctx, cursor)
	defer u.release(held)
	if err != nil || len(pg.frames) == 0 {
		return pg.next, err
	}
	if err := u.send(ctx, pg.frames); err != nil {
		return 0, err
	}
	u.alive()
	u.metrics.events.Add(float64(pg.events))
	u.metrics.bytes.Add(float64(len(pg.frames)))
	return pg.next, nil
}

// take reads the page at cursor, and reserves the bytes of a long one. Without room it drops the
// page and reads it again once there is, so that waiting costs no memory.
func (u *subscriber) take(ctx context.Context, cursor uint64) (pg *page, held int64, err error) {
	for {
		pg, err := u.pages.read(ctx, cursor)
		if err != nil {
			return &page{}, held, err
		}
		n := u.long(pg)
		if n <= held || held == 0 && u.held.TryAcquire(u.client, n) {
			return pg, max(n, held), nil
		}
		u.release(held)
		if err := u.held.Acquire(ctx, u.client, n); err != nil {
			return &page{}, 0, err
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

// long returns how many bytes of pg are to be reserved: none of a usual page.
func (s *streams) long(pg *page) int64 {
	if cap(pg.frames) <= 2*s.pages.pageBytes {
		return 0
	}
	return min(int64(cap(pg.frames)), s.held.Most())
}

// attend answers pings and sends pings, until the log has more.
func (u *subscriber) attend(ctx context.Context, more <-chan struct{}, pings <-chan time.Time) error {
	for {
		var frame []byte
		select {
		case <-more:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case text := <-u.pongs:
			frame = appendControl(nil, framePong, text)
		case <-pings:
			frame = appendControl(nil, framePing, "")
		}
		if err := u.send(ctx, frame); err != nil {
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
	u.cut = frames[n:frameEnd(frames, n)]
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
	reason, frames := closing(err)
	u.metrics.ended.WithLabelValues(reason).Inc()
	level := slog.LevelDebug
	if reason == "internal" {
		level = slog.LevelError
	}
	u.logger.Log(context.Background(), level, "stream ended", slog.String("reason", reason), slog.Any("err", err))
	deadline := time.Now().Add(farewellTimeout)
	if u.conn.SetWriteDeadline(deadline) == nil {
		if _, err := u.conn.Write(append(u.cut[:len(u.cut):len(u.cut)], frames...)); err == nil && reason != "peer" {
			u.leave(deadline)
			return
		}
	}
	_ = u.conn.Close() // ends listen at once
}

// closing returns the frames that end a stream.
func closing(err error) (reason string, frames []byte) {
	const normal, goingAway, policy, internal = 1000, 1001, 1008, 1011
	switch {
	case errors.Is(err, errPeer):
		return "peer", appendClose(nil, normal, "")
	case errors.Is(err, errTalk):
		return "message", appendClose(nil, policy, errTalk.Error())
	case errors.Is(err, context.Canceled):
		return "shutdown", appendClose(nil, goingAway, "going away")
	case errors.Is(err, errTooSlow):
		return "slow", appendClose(appendError(nil, "ConsumerTooSlow", err.Error()), policy, "ConsumerTooSlow")
	}
	_, name, message := classify(err)
	code, reason := uint16(policy), "cursor"
	if name != "FutureCursor" && name != "OutdatedCursor" {
		code, reason = internal, "internal"
	}
	return reason, appendClose(appendError(nil, name, message), code, name)
}
