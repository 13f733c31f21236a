package simnet

import (
	"cmp"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"
)

// subscriber is a connection that reads a stream.
type subscriber struct {
	conn *websocket.Conn
	done chan struct{} // closed when the connection broke or the client left
	deaf atomic.Bool   // pings go unanswered

	// guarded by stream.mu:
	pos    int64 // of the last message sent
	sent   int   // how many were
	lagged int64 // the last message that Lag delayed
}

// serve answers subscribeRepos until one side ends it.
func (s *stream) serve(w http.ResponseWriter, r *http.Request) {
	cursor, err := parseCursor(r)
	if err != nil {
		writeError(w, http.StatusBadRequest, "InvalidRequest", err.Error())
		return
	}
	if in := s.refusal(); in != nil {
		writeError(w, cmp.Or(in.fault.Status, http.StatusTooManyRequests), "Refused", "try again later")
		return
	}
	upgrader := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // the upgrader answered
	}
	defer conn.Close()
	sub := &subscriber{conn: conn, done: make(chan struct{})}
	first, ok := s.join(sub, cursor)
	if !ok {
		return
	}
	defer s.leave(sub)
	var g errgroup.Group
	g.Go(func() error {
		sub.listen()
		return nil
	})
	if !first.end && len(first.frame) > 0 {
		_ = conn.WriteMessage(websocket.BinaryMessage, first.frame)
	}
	if first.end {
		sub.finish(first.frame)
	} else {
		s.feed(sub)
	}
	_ = conn.Close()
	_ = g.Wait()
}

// noCursor is the cursor of a connection that wants new messages only.
const noCursor = math.MinInt64

func parseCursor(r *http.Request) (int64, error) {
	text := r.URL.Query().Get("cursor")
	if text == "" {
		return noCursor, nil
	}
	cursor, err := strconv.ParseInt(text, 10, 64)
	if err != nil || cursor < 0 {
		return 0, fmt.Errorf("cursor %.40q is not a seq", text)
	}
	return cursor, nil
}

// greeting is the first frame of a connection, after which it may end.
type greeting struct {
	frame []byte
	end   bool
}

// join puts a subscriber where its cursor points; false if the host goes down.
func (s *stream) join(sub *subscriber, cursor int64) (greeting, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return greeting{}, false
	}
	s.readers[sub] = struct{}{}
	sub.pos = cursor
	switch {
	case cursor == noCursor:
		sub.pos = s.head
	case cursor > s.head && s.silent:
		sub.pos = s.head
	case cursor < s.dropped && s.silent:
		sub.pos = s.dropped
	case cursor > s.head:
		return greeting{errorFrame("FutureCursor", "Cursor in the future."), true}, true
	case cursor < s.dropped:
		sub.pos = s.dropped
		return greeting{frame: infoFrame("OutdatedCursor",
			"Requested cursor exceeded limit. Possibly missing events")}, true
	}
	return greeting{}, true
}

func (s *stream) leave(sub *subscriber) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.readers, sub)
}

// listen reads from the client: pings and the close frame.
func (sub *subscriber) listen() {
	defer close(sub.done)
	sub.conn.SetReadLimit(1 << 16)
	sub.conn.SetPingHandler(func(data string) error {
		if !sub.deaf.Load() {
			_ = sub.conn.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(time.Second))
		}
		return nil
	})
	for {
		if _, _, err := sub.conn.ReadMessage(); err != nil {
			return
		}
	}
}

// finish sends a last frame and closes in order.
func (sub *subscriber) finish(frame []byte) {
	_ = sub.conn.WriteMessage(websocket.BinaryMessage, frame)
	bye := websocket.FormatCloseMessage(websocket.ClosePolicyViolation, "")
	_ = sub.conn.WriteControl(websocket.CloseMessage, bye, time.Now().Add(time.Second))
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-sub.done:
	case <-timer.C:
	}
}

// turn is the next step of a connection: a message, an ending, a wait for a change or for a time.
type turn struct {
	message message
	send    bool
	fault   *StreamInjection
	ending  []byte
	changed <-chan struct{}
	wait    time.Duration
}

// feed sends messages as they come until the connection ends.
func (s *stream) feed(sub *subscriber) {
	var buf []byte
	for {
		t := s.next(sub)
		switch {
		case t.fault != nil:
			t.fault.end(sub, t.message)
			return
		case t.ending != nil:
			sub.finish(t.ending)
			return
		case t.send:
			buf = t.message.append(buf[:0])
			if sub.conn.WriteMessage(websocket.BinaryMessage, buf) != nil {
				return
			}
			s.passed(sub, t.message.pos)
		case !sub.rest(t):
			return
		}
	}
}

// rest waits for a change or a time; false if the connection ended first.
func (sub *subscriber) rest(t turn) bool {
	var due <-chan time.Time
	if t.wait > 0 {
		timer := time.NewTimer(t.wait)
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-t.changed:
	case <-due:
	case <-sub.done:
		return false
	}
	return true
}

func (s *stream) passed(sub *subscriber, pos int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub.pos = pos
	sub.sent++
}

// next returns the next step of a connection.
func (s *stream) next(sub *subscriber) turn {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.after(sub.pos)
	pending := i < len(s.log)
	if in := s.connectionFault(sub, pending); in != nil {
		t := turn{fault: in}
		if pending {
			t.message = s.log[i]
		}
		return t
	}
	if sub.pos < s.dropped {
		return turn{ending: errorFrame("ConsumerTooSlow", "Stream consumer too slow")}
	}
	if !pending {
		return turn{changed: s.changed}
	}
	m := s.log[i]
	if wait := s.lag(sub, m); wait > 0 {
		return turn{wait: wait, changed: s.changed}
	}
	return turn{message: m, send: true}
}
