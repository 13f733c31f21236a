package clients

import (
	"container/list"
	"net"
	"net/http"
	"net/netip"
	"sync"
)

// Listener bounds the open connections of a listener, in total and per client. If there is no place
// for a new connection, the connection that has been idle longest is closed: of all clients while
// the new client holds less than its share, else of this client only. If no such connection is
// idle, the new connection is closed at once, so that it does not delay other clients in the
// kernel's queue. A connection is idle until the header of a request is complete, so that clients
// that send headers slowly keep no places from others.
type Listener struct {
	net.Listener
	places  *Places
	refused func() // called for each connection that was closed at once, or for its large header
	evicted func() // called for each idle connection that was closed for a new one
	free    int64  // see LimitHeaders
	large   *Turns // see LimitHeaders; nil: no limit

	// mu guards:
	mu   sync.Mutex
	idle *list.List                  // all idle *conn, the longest idle first
	own  map[netip.Prefix]*list.List // the same for each client with idle connections
}

// Limit bounds the connections of a listener by its places. NoteState must be the ConnState of the
// server that accepts them.
func Limit(l net.Listener, p *Places, refused, evicted func()) *Listener {
	return &Listener{Listener: l, places: p, refused: refused, evicted: evicted,
		idle: list.New(), own: map[netip.Prefix]*list.List{}}
}

// Accept returns the next connection for which there is a place.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if admitted := l.admit(c); admitted != nil {
			return admitted, nil
		}
		l.refused()
		_ = c.Close() // an error concerns the peer only
	}
}

// admit returns c with a place, or nil.
func (l *Listener) admit(c net.Conn) *conn {
	from := Of(c.RemoteAddr().String())
	if !l.places.Take(from) && !l.evict(from) {
		return nil
	}
	admitted := &conn{Conn: c, listener: l, client: from}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wait(admitted)
	return admitted
}

// evict closes an idle connection and gives its place to a client.
func (l *Listener) evict(from netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	waiting := l.own[from]
	if l.places.BelowShare(from) {
		waiting = l.idle
	}
	if waiting == nil || waiting.Len() == 0 {
		return false
	}
	victim := waiting.Front().Value.(*conn)
	l.stop(victim)
	victim.closed = true
	_ = victim.Conn.Close() // its server sees it closed
	l.evicted()
	// If the victim belongs to the same client, its place is taken over: once released, it might
	// become part of the reserve.
	if victim.client == from {
		return true
	}
	l.places.Give(victim.client)
	return l.places.Take(from)
}

// wait records that c is idle. mu is held.
func (l *Listener) wait(c *conn) {
	if c.idle != nil || c.closed {
		return
	}
	own := l.own[c.client]
	if own == nil {
		own = list.New()
		l.own[c.client] = own
	}
	c.idle, c.idleOwn = l.idle.PushBack(c), own.PushBack(c)
}

// stop records that c has a request, or is closed. mu is held.
func (l *Listener) stop(c *conn) {
	if c.idle == nil {
		return
	}
	own := l.own[c.client]
	l.idle.Remove(c.idle)
	own.Remove(c.idleOwn)
	if own.Len() == 0 {
		delete(l.own, c.client)
	}
	c.idle, c.idleOwn = nil, nil
}

type conn struct {
	net.Conn
	listener *Listener
	client   netip.Prefix
	header   header

	// listener.mu guards:
	idle, idleOwn *list.Element // nil while a request is answered
	closed        bool          // its place was released or taken over
}

// Close releases the place.
func (c *conn) Close() error {
	l := c.listener
	l.mu.Lock()
	if !c.closed {
		c.closed = true
		l.stop(c)
		l.places.Give(c.client)
	}
	l.mu.Unlock()
	return c.Conn.Close()
}

// NoteState is called when the state of a connection of a Listener changes
// (http.Server.ConnState). The connection of a stream is hijacked, and never idle.
func NoteState(of net.Conn, state http.ConnState) {
	c, ok := of.(*conn)
	if !ok {
		return
	}
	c.header.note(state, func() { c.listener.large.Release(c.client, 1) })
	c.listener.mu.Lock()
	defer c.listener.mu.Unlock()
	switch state {
	case http.StateNew, http.StateIdle:
		c.listener.wait(c)
	case http.StateActive, http.StateHijacked, http.StateClosed:
		c.listener.stop(c)
	}
}
