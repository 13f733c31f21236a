package firehose_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cistern/ingest/firehose"
)

// pipes is a network in memory. A goroutine that waits for it is durably blocked, as one that waits
// for a socket is not, so that time is virtual in a test that uses it within a synctest bubble.
type pipes struct {
	mu        sync.Mutex
	listeners map[string]*pipeListener // by address
}

// inBubble runs a test in a synctest bubble, with a network in memory.
func inBubble(t *testing.T, f func(t *testing.T, net *pipes)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { f(t, &pipes{listeners: map[string]*pipeListener{}}) })
}

// server is newServer on this network.
func (p *pipes) server(t *testing.T, script func(n int, c *client)) *server {
	h := &server{t: t, script: script}
	h.Server = httptest.NewUnstartedServer(h)
	h.Server.Listener.Close()
	h.Server.Listener = p.listen()
	h.Start()
	h.url = "ws" + strings.TrimPrefix(h.URL, "http")
	t.Cleanup(func() {
		h.Close()
		h.open.Wait()
	})
	return h
}

// talker is a firehose that sends one message every second.
func (p *pipes) talker(t *testing.T) *server {
	return p.server(t, func(_ int, c *client) {
		c.listen()
		for seq := int64(1); ; seq++ {
			c.send(account(seq))
			select {
			case <-c.gone:
				return
			case <-time.After(time.Second):
			}
		}
	})
}

// stage is newStage on this network.
func (p *pipes) stage(t *testing.T, change ...func(*firehose.Options)) *stage {
	s := newStage(t, change...)
	firehose.SetDial(s.r, p.dial)
	return s
}

func (p *pipes) listen() *pipeListener {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{}),
		addr: net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1 + len(p.listeners)}}
	l.close = sync.OnceFunc(func() { close(l.closed) })
	p.listeners[l.addr.String()] = l
	return l
}

func (p *pipes) dial(ctx context.Context, _, address string) (net.Conn, error) {
	p.mu.Lock()
	l := p.listeners[address]
	p.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("nothing listens at %s", address)
	}
	a, b := net.Pipe()
	select {
	case l.conns <- newPipeConn(b):
		return newPipeConn(a), nil
	case <-l.closed:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// pipeListener is the net.Listener of a server on pipes.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	close  func()
	addr   net.TCPAddr
}

// Accept waits for a connection.
func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close refuses connections from now on.
func (l *pipeListener) Close() error { l.close(); return nil }

// Addr is the address of the listener.
func (l *pipeListener) Addr() net.Addr { return &l.addr }

// pipeConn is one end of a pipe. As a socket does, it buffers what is written until the other end
// reads it, and delivers that before the end of the stream.
type pipeConn struct {
	net.Conn
	out    chan []byte
	closed chan struct{}
	close  func()
}

func newPipeConn(end net.Conn) *pipeConn {
	c := &pipeConn{Conn: end, out: make(chan []byte, 256), closed: make(chan struct{})}
	c.close = sync.OnceFunc(func() {
		close(c.closed)
		_ = end.SetReadDeadline(time.Unix(1, 0)) // ends reads under way
		_ = end.SetReadDeadline(time.Time{})
		go func() { _, _ = io.Copy(io.Discard, end) }() // lets the other end empty its buffer
	})
	go c.deliver()
	return c
}

// deliver writes what the buffer holds to the other end until this end is closed and the buffer is
// empty, or the other end is closed.
func (c *pipeConn) deliver() {
	defer c.Conn.Close()
	defer c.close()
	for {
		select {
		case b := <-c.out:
			if _, err := c.Conn.Write(b); err != nil {
				return
			}
			continue
		default:
		}
		select {
		case b := <-c.out:
			if _, err := c.Conn.Write(b); err != nil {
				return
			}
		case <-c.closed:
			return
		}
	}
}

// Write puts b into the buffer.
func (c *pipeConn) Write(b []byte) (int, error) {
	if c.isClosed() {
		return 0, net.ErrClosed
	}
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	case c.out <- bytes.Clone(b):
		return len(b), nil
	}
}

// Read fails as that of a socket does once this end is closed.
func (c *pipeConn) Read(b []byte) (int, error) {
	if c.isClosed() {
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Read(b)
	if err != nil && c.isClosed() {
		err = net.ErrClosed
	}
	return n, err
}

func (c *pipeConn) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

// SetDeadline and SetWriteDeadline leave writes alone: only a full buffer makes them wait.
func (c *pipeConn) SetDeadline(t time.Time) error      { return c.Conn.SetReadDeadline(t) }
func (c *pipeConn) SetWriteDeadline(_ time.Time) error { return nil }

// Close ends reads at once, and the connection when the buffer is empty.
func (c *pipeConn) Close() error { c.close(); return nil }
