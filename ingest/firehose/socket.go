package firehose

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"cistern/ingest/frame"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"
)

// socket is one connection to a source.
type socket struct {
	src   *Source
	conn  *websocket.Conn
	since time.Time

	// owned by the reading goroutine:
	asked      bool      // connected with a cursor
	begins     bool      // no message with a seq has come yet
	untimed    bool      // nor one that states a time
	newest     int64     // seq of the newest message of this connection, -1 for none
	clock      int64     // the source's clock when the connection was made
	sinceTime  int64     // since by Options.Now, unix microseconds
	renewed    time.Time // when the read deadline was set
	begun      time.Time // when the message being read began, zero between messages
	read       int       // number of messages
	outdated   bool
	complained bool // a malformed message was logged

	// for watch:
	looked   bool         // checkSilence was called
	reading  atomic.Bool  // waiting for a message, not handling one
	messages atomic.Int64 // number of messages read
	lively   atomic.Int64 // unix nanoseconds of the last sign of life, including pings and pongs
	heard    atomic.Int64 // unix nanoseconds of the newest message, or of the end of handling it
}

// cappedConn bounds the bytes that are read before the handshake ends.
type cappedConn struct {
	net.Conn
	left int64
}

func (c *cappedConn) Read(b []byte) (int, error) {
	if c.left <= 0 {
		return 0, fmt.Errorf("answer of more than %d bytes", handshakeBytesMax)
	}
	n, err := c.Conn.Read(b)
	c.left -= int64(n)
	return n, err
}

// follow connects and reads until attempt ends (nil) or something fails. Events that were read are
// handled until ctx, the context of the run, ends, even if attempt has ended.
func (s *Source) follow(attempt, ctx context.Context) *ending {
	cursor := s.tracker.last()
	c, end := s.connect(attempt, cursor)
	s.tried.Store(true)
	if end != nil {
		if attempt.Err() != nil {
			return nil
		}
		return end
	}
	s.connectedNow(cursor)
	if cursor < 0 {
		if err := s.begunAtTip(); err != nil {
			c.conn.Close()
			return err
		}
	}
	s.strays, s.recounted = 0, false
	s.socket.Store(c)
	defer s.socket.Store(nil)
	var g errgroup.Group
	watching, stop := context.WithCancel(attempt)
	patience := s.patience
	g.Go(func() error { return c.watch(watching, patience) })
	err := c.readAll(ctx)
	stop()
	watched := g.Wait()
	if c.read >= healthyEvents || time.Since(c.since) >= healthyAfter {
		s.Healthy()
	}
	if c.read >= healthyEvents {
		s.patience = s.set.opts.SilentAfter
	}
	if end, ok := errors.AsType[*ending](err); ok && end.ours {
		return end
	}
	if attempt.Err() != nil {
		return nil
	}
	if end, ok := errors.AsType[*ending](watched); ok {
		if end.ours {
			return end
		}
		if c.read < healthyEvents && !end.lone {
			s.patience = min(2*s.patience, max(patienceMax, s.patience))
		}
		return end
	}
	end = why(err)
	end.inside = !c.begun.IsZero()
	return end
}

// begunAtTip requests a comparison of our rows with the source's listing if messages may have
// passed before the connection stood, since no later event shows them. At the first connection
// nothing was missed if no copy has been begun: fetches that begin from now on read at least what
// existed when the connection stood. At a later one, accounts may have been announced since the
// crawl read the listing.
func (s *Source) begunAtTip() *ending {
	counts := s.set.store.Counts()
	begun := counts["synced"]+counts["draining"]+counts["resync"] > 0 || s.set.store.FetchBegun()
	missed := s.tipped && counts["repos"] > 0
	s.tipped = true
	if !begun && !missed {
		return nil
	}
	err := s.set.reconcile(s, false)
	if end, ok := errors.AsType[*ending](err); ok {
		return end
	}
	return nil
}

// why returns the ending for an error of a connection.
func why(err error) *ending {
	if end, ok := errors.AsType[*ending](err); ok {
		return end
	}
	var closed *websocket.CloseError
	var network net.Error
	switch {
	case errors.As(err, &closed), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, net.ErrClosed):
		return &ending{kind: failClosed, err: err}
	case errors.As(err, &network) && network.Timeout():
		return &ending{kind: failTimeout, err: err}
	case errors.As(err, &network):
		return &ending{kind: failClosed, err: err}
	}
	return &ending{kind: failRead, err: err}
}

// connect makes a connection that continues behind cursor.
func (s *Source) connect(attempt context.Context, cursor int64) (*socket, *ending) {
	var raw *cappedConn
	release := func() bool { return true }
	dialer := websocket.Dialer{
		NetDialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := s.set.dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			raw = &cappedConn{Conn: conn, left: handshakeBytesMax}
			// the handshake obeys only its timeout, not the context
			release = context.AfterFunc(attempt, func() { conn.Close() })
			return raw, nil
		},
		HandshakeTimeout: handshakeTimeout,
		ReadBufferSize:   readBufferBytes,
		WriteBufferSize:  writeBufferBytes,
	}
	if s.pds.Load() {
		dialer.ReadBufferSize = readBufferBytesPDS
	}
	conn, resp, err := dialer.DialContext(attempt, subscribeURL(s.url, cursor),
		http.Header{"User-Agent": {s.set.opts.UserAgent}})
	release()
	if err != nil {
		if resp == nil {
			return nil, &ending{kind: failDial, err: err}
		}
		return nil, &ending{kind: failHTTP, err: fmt.Errorf("answer %.100q", resp.Status),
			wait: retryAfter(resp, s.set.opts.Now())}
	}
	if ext := resp.Header.Get("Sec-Websocket-Extensions"); ext != "" {
		conn.Close()
		return nil, &ending{kind: failHTTP,
			err: fmt.Errorf("answer with extension %.100q that was not offered", ext)}
	}
	raw.left = math.MaxInt64
	now := time.Now()
	c := &socket{src: s, conn: conn, since: now, asked: cursor >= 0, begins: cursor >= 0,
		untimed: cursor >= 0, newest: -1, clock: s.gaps.clock.Load(),
		sinceTime: s.set.opts.Now().UnixMicro()}
	c.heard.Store(now.UnixNano())
	c.reading.Store(true)
	conn.SetPongHandler(func(string) error { c.renew(time.Now()); return nil })
	conn.SetPingHandler(func(data string) error {
		c.renew(time.Now())
		return conn.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(writeTimeout))
	})
	return c, nil
}

// retryAfter returns how long a busy host asks us to wait.
func retryAfter(resp *http.Response, now time.Time) time.Duration {
	if resp.StatusCode != http.StatusTooManyRequests &&
		resp.StatusCode != http.StatusServiceUnavailable {
		return 0
	}
	text := resp.Header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// renew gives the host Options.ReadTimeout from now, but bounds the time of one message.
func (c *socket) renew(now time.Time) {
	timeout := c.src.set.opts.ReadTimeout
	c.lively.Store(now.UnixNano())
	if now.Sub(c.renewed) < timeout/16 ||
		!c.begun.IsZero() && now.Sub(c.begun) > messageTimeouts*timeout {
		return
	}
	c.renewed = now
	_ = c.conn.SetReadDeadline(now.Add(timeout)) // on an error the next read fails too
}

// watch pings a host that shows no sign of life, so that a dead host can be told from a silent one.
// It ends the connection of a source that is silent while others are not, or that is silent for far
// longer whatever others do, and closes it when ctx ends.
func (c *socket) watch(ctx context.Context, patience time.Duration) error {
	defer c.conn.Close()
	o := &c.src.set.opts
	pings := max(time.Millisecond, min(o.ReadTimeout/3, patience/4))
	t := time.NewTicker(pings)
	defer t.Stop()
	healthy := false
	for {
		select {
		case <-ctx.Done():
			bye := websocket.FormatCloseMessage(websocket.CloseGoingAway, "")
			// best effort
			_ = c.conn.WriteControl(websocket.CloseMessage, bye, time.Now().Add(time.Second))
			return nil
		case now := <-t.C:
			if now.UnixNano()-c.lively.Load() > int64(pings)/2 {
				if err := c.conn.WriteControl(websocket.PingMessage, nil, now.Add(writeTimeout)); err != nil {
					return nil // the reading goroutine finds out why
				}
			}
			if err := c.checkQuiet(now, patience); err != nil {
				return err
			}
			if !healthy && now.Sub(c.since) >= healthyAfter {
				healthy = true
				c.src.Healthy()
			}
		}
	}
}

// checkQuiet acts on a connection on which no message comes while we wait for one.
func (c *socket) checkQuiet(now time.Time, patience time.Duration) error {
	if !c.reading.Load() {
		return nil
	}
	s := c.src
	heard, spoke := c.heard.Load(), s.set.spoke.Load()
	quiet := now.Sub(time.Unix(0, heard))
	if c.messages.Load() == 0 && quiet > s.set.idleAfter() && !c.looked {
		c.looked = true
		if err := c.checkSilence(); err != nil {
			return err
		}
	}
	// Only now: once this is written, a later process sees no gap.
	if quiet > s.set.idleAfter() { // the host has sent all that it has
		s.gaps.read(math.MaxInt64, s.set.opts.Now().UnixMicro())
	}
	if quiet > patience && spoke > heard && now.Sub(time.Unix(0, spoke)) < patience {
		return &ending{kind: failSilent, idle: s.pds.Load(),
			err: fmt.Errorf("no message for %s while other sources sent some",
				quiet.Round(time.Millisecond))}
	}
	if quiet > idlePatiences*patience {
		return &ending{kind: failSilent, idle: true, lone: true,
			err: fmt.Errorf("no message for %s", quiet.Round(time.Millisecond))}
	}
	return nil
}

// readAll reads messages until the connection ends, or ctx.
func (c *socket) readAll(ctx context.Context) error {
	for {
		e, err := c.next()
		if err == nil || e != nil {
			c.note()
		}
		if e != nil {
			if err := c.handle(ctx, e); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
		c.heard.Store(time.Now().UnixNano())
	}
}

// note counts a message.
func (c *socket) note() {
	now := time.Now().UnixNano()
	c.heard.Store(now)
	c.src.set.spoke.Store(now)
	c.src.lastRead.Store(c.src.set.opts.Now().UnixNano())
	c.src.messages.Add(1)
	c.messages.Add(1)
	if c.read++; c.read == healthyEvents {
		c.src.Healthy()
	}
}

// weigh counts the bytes of a message.
func (c *socket) weigh(n int) {
	c.src.bytes.Add(int64(n))
	c.src.set.metrics.bytes.Add(float64(n))
}

// next reads one message, nil if it was skipped. Of a message that is too long it returns the
// beginning, even if the rest could not be read.
func (c *socket) next() (*Event, error) {
	c.begun = time.Time{}
	c.renew(time.Now())
	c.reading.Store(true)
	defer c.reading.Store(false)
	typ, r, err := c.conn.NextReader()
	if err != nil {
		return nil, err
	}
	c.begun = time.Now()
	p := &c.src.set.pool
	b, n := p.buffer(0), 0
	for {
		if n == len(b.b) {
			b = p.grow(b)
		}
		m, err := r.Read(b.b[n:])
		n += m
		switch {
		case n > frame.BytesMax:
			e := p.event()
			e.Source, e.buffer, e.Message = c.src, b, b.b[:n]
			return e, c.discard(n, r)
		case err == io.EOF:
			c.weigh(n)
			if typ != websocket.BinaryMessage {
				p.putBuffer(b)
				return nil, c.bad(0, errors.New("text message instead of binary"))
			}
			e := p.event()
			e.Source, e.buffer, e.Message = c.src, b, b.b[:n]
			return e, nil
		case err != nil:
			p.putBuffer(b)
			return nil, err
		}
		if m > 0 {
			c.renew(time.Now())
		}
	}
}

// discard reads the rest of a message that is too long, of which n bytes have been read.
func (c *socket) discard(n int, r io.Reader) error {
	p := &c.src.set.pool
	scratch := p.buffer(discardClass)
	defer p.putBuffer(scratch)
	for {
		m, err := r.Read(scratch.b)
		n += m
		if err == nil && n <= discardBytesMax {
			c.renew(time.Now())
			continue
		}
		c.weigh(n)
		switch err {
		case io.EOF:
			return nil
		case nil:
			return &ending{kind: failRead, err: fmt.Errorf("message of more than %d bytes", discardBytesMax)}
		}
		return err
	}
}

// bad counts a malformed message, and moves the cursor past it if its seq is known.
func (c *socket) bad(seq int64, why error) error {
	c.complain(seq, why)
	return c.skip(seq, 0)
}

// complain counts a malformed message, and logs the first of a connection.
func (c *socket) complain(seq int64, why error) {
	s := c.src
	s.set.metrics.bad.Inc()
	if s.bad.Add(1); !c.complained {
		c.complained = true
		s.set.opts.Logger.Warn("malformed message from source; further ones on this connection are not "+
			"logged", "source", s.url, "seq", seq, "err", why)
	}
}

// skip moves the cursor past a message that concerns no shard. stated is its time, 0 if that is
// unknown.
func (c *socket) skip(seq, stated int64) error {
	if seq <= 0 {
		return nil
	}
	number, err := c.admit(seq, stated)
	c.src.tracker.finish(number)
	return err
}

// handle decodes a message, and hands it to its shard or acts on it itself.
func (c *socket) handle(ctx context.Context, e *Event) error {
	s, f := c.src, &e.Frame
	if err := f.Decode(e.Message); err != nil {
		if (f.Kind == frame.KindCommit || f.Kind == frame.KindSync) && f.DID != "" && f.Rev != "" &&
			f.Seq > 0 {
			// The shard has the repository fetched, as after any other invalid commit.
			c.complain(f.Seq, err)
			e.Broken = err
			return c.dispatch(ctx, e)
		}
		defer s.set.release(e)
		return c.bad(f.Seq, err)
	}
	s.set.metrics.messages[f.Kind].Inc()
	switch f.Kind {
	case frame.KindCommit, frame.KindSync, frame.KindIdentity, frame.KindAccount:
		return c.dispatch(ctx, e)
	}
	defer s.set.release(e)
	switch {
	case f.Kind == frame.KindError:
		return c.failed(f.Name, f.Message)
	case f.Kind == frame.KindInfo && f.Name == "OutdatedCursor" && !c.outdated:
		c.outdated = true
		s.set.opts.Logger.Warn("source no longer has all events since the cursor: comparing its listing",
			"source", s.url, "message", f.Message)
		return s.set.reconcile(s, false)
	}
	return c.skip(f.Seq, f.Time)
}

// failed acts on an error message, after which a host sends nothing more.
func (c *socket) failed(name, message string) error {
	s := c.src
	if name == "FutureCursor" && c.asked {
		s.set.opts.Logger.Warn("source has begun a new count of messages, below the cursor: continuing "+
			"at its newest message", "source", s.url, "seq", s.tracker.last())
		if err := s.set.reconcile(s, true); err != nil {
			return err
		}
	}
	return &ending{kind: failError, err: fmt.Errorf("%.100q: %.200q", name, message)}
}

// dispatch hands an event to its shard. It waits while the queues are full.
func (c *socket) dispatch(ctx context.Context, e *Event) error {
	s := c.src
	if e.Frame.Kind == frame.KindCommit {
		e.Trace = s.set.opts.Tracer.Begin("commit", c.begun)
		e.describe()
	}
	number, err := c.admit(e.Frame.Seq, e.Frame.Time)
	if err != nil {
		s.set.release(e)
		return err
	}
	e.Number = number
	cost := min(int64(len(e.buffer.b)+opBytes*cap(e.Frame.Ops)), s.set.opts.QueueBytes)
	if err := s.set.queue.Acquire(ctx, cost); err != nil {
		s.set.release(e)
		return err
	}
	e.cost = cost
	s.set.queued.Add(cost)
	if err := s.set.submit(ctx, e); err != nil {
		s.set.release(e)
		return err
	}
	return nil
}

// admit assigns an event its number, or 0 if its seq is not above the cursor: the host may repeat
// itself, and revs show what is new. If the host continues below the cursor, it has begun a new
// count, and the source follows that.
func (c *socket) admit(seq, stated int64) (number int64, err error) {
	s := c.src
	if c.begins || c.untimed {
		if err := c.checkGap(seq, stated); err != nil {
			return 0, err
		}
	}
	number, ok := s.tracker.begin(seq)
	if stated > 0 {
		s.lastStated.Store(stated)
		s.gaps.read(stated, s.set.opts.Now().UnixMicro())
	}
	if ok {
		if c.newest >= 0 {
			s.gaps.step(c.newest, seq)
		}
		s.strays, c.newest = 0, seq
		return number, nil
	}
	if s.strays == 0 || seq <= s.strayLast {
		s.strays = 0
	}
	s.strays++
	s.strayLast = seq
	if s.strays < straysMax {
		return 0, nil
	}
	s.strays = 0
	// each new count costs a write and a log line, and the host could go on for ever
	if s.recounted {
		return 0, &ending{kind: failError,
			err: fmt.Errorf("the host keeps beginning new counts, seq %d", seq)}
	}
	s.recounted = true
	s.set.opts.Logger.Warn("source has begun a new count of messages: following it",
		"source", s.url, "was", s.tracker.last(), "seq", seq)
	if err := s.set.reconcile(s, true); err != nil {
		return 0, err
	}
	number, _ = s.tracker.begin(seq)
	c.newest = seq
	return number, nil
}
