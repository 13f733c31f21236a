package clients

import (
	"errors"
	"net"
	"net/http"
	"sync/atomic"
)

// errHeaders means that the header of a request is large while too many others are.
var errHeaders = errors.New("too many requests with large headers")

// LimitHeaders bounds the requests whose header has more bytes than free: each holds one of turns
// until it is answered or, for a stream, upgraded. A connection with one too many fails.
func (l *Listener) LimitHeaders(free int64, turns *Turns) *Listener {
	l.free, l.large = free, turns
	return l
}

// header counts the bytes of the header of a request. The goroutine that serves the connection
// reads headers and reports states; another one may read meanwhile.
type header struct {
	reading atomic.Bool
	bytes   atomic.Int64
	large   atomic.Bool // holds a turn
}

// note follows the state of the connection.
func (h *header) note(state http.ConnState, release func()) {
	if state != http.StateActive && h.large.CompareAndSwap(true, false) {
		release()
	}
	h.reading.Store(state == http.StateNew || state == http.StateIdle)
	h.bytes.Store(0)
}

// Read fails when a header becomes large and there is no turn for it.
func (c *conn) Read(b []byte) (int, error) {
	l := c.listener
	if l.large == nil || !c.header.reading.Load() {
		return c.Conn.Read(b)
	}
	if c.header.bytes.Load() >= l.free && !c.header.large.Load() {
		if !l.large.TryAcquire(c.client, 1) {
			l.refused()
			// Package http answers other errors with 400, and a client would not try again.
			return 0, &net.OpError{Op: "read", Net: "tcp", Err: errHeaders}
		}
		c.header.large.Store(true)
	}
	n, err := c.Conn.Read(b)
	c.header.bytes.Add(int64(n))
	return n, err
}
