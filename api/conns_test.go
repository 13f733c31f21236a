package api_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"cistern/api"

	"golang.org/x/sync/errgroup"
)

// visitor is one connection of a client.
type visitor struct {
	net.Conn
	in *bufio.Reader
}

// visit connects to addr from the loopback address from.
func visit(t testing.TB, from, addr string) *visitor {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return &visitor{c, bufio.NewReader(c)}
}

// ask sends one request and reads its answer.
func (v *visitor) ask() error {
	if _, err := io.WriteString(v, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		return err
	}
	res, err := http.ReadResponse(v.in, nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", res.StatusCode)
	}
	return err
}

// serveBounded serves the public side with at most limit connections.
func serveBounded(t testing.TB, limit, reserve, share int) (addr string) {
	t.Helper()
	w := newWorld(t, api.Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := w.server.HTTPServer(context.WithoutCancel(t.Context()), false)
	var g errgroup.Group
	g.Go(func() error { return srv.Serve(api.LimitListener(l, limit, reserve, share)) })
	t.Cleanup(func() {
		if err := errors.Join(srv.Close(), g.Wait()); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

const one, two, three, four = "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"

// A client that opens more connections than it may have loses as many idle ones, and no other client loses any.
func TestConnectionsAreSharedByClients(t *testing.T) {
	t.Parallel()
	const limit, reserve, share = 16, 4, 2
	addr := serveBounded(t, limit, reserve, share)
	first := visit(t, two, addr)
	if err := first.ask(); err != nil {
		t.Fatal(err)
	}
	var greedy []*visitor
	for i := range 3 * limit {
		v := visit(t, one, addr)
		if err := v.ask(); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		greedy = append(greedy, v)
	}
	open := 0
	for _, v := range greedy {
		if v.ask() == nil {
			open++
		}
	}
	if want := limit - reserve - 1; open != want {
		t.Errorf("one client has %d connections open, want %d", open, want)
	}
	for _, from := range []string{two, three, three, four} {
		if err := visit(t, from, addr).ask(); err != nil {
			t.Errorf("a client of few connections, %s: %v", from, err)
		}
	}
	if err := first.ask(); err != nil {
		t.Errorf("the connection that was there before: %v", err)
	}
}

// Serve bounds what one client takes of the public listener: with 4,096 places, 3,072.
func TestServeLeavesPlacesForOthers(t *testing.T) {
	if testing.Short() {
		t.Skip("opens 3,200 connections")
	}
	w := newWorld(t, api.Options{})
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	public := listen()
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return w.server.Serve(ctx, public, listen()) })
	addr := public.Addr().String()
	var greedy []*visitor
	for range 3200 {
		v := visit(t, one, addr)
		if err := v.ask(); err != nil {
			t.Fatal(err)
		}
		greedy = append(greedy, v)
	}
	for range 64 {
		if err := visit(t, two, addr).ask(); err != nil {
			t.Error(err)
		}
	}
	open := 0
	for _, v := range greedy {
		if v.ask() == nil {
			open++
		}
	}
	if open != 3072 {
		t.Errorf("one client has %d connections open, want 3072", open)
	}
	cancel()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// pipeConn is the server's end of a pipe, from a peer with an address.
type pipeConn struct {
	net.Conn
	peer net.Addr
}

func (c pipeConn) RemoteAddr() net.Addr { return c.peer }

// pipes serves clients over pipes in a bubble, where synctest.Wait waits for the server to be idle.
type pipes struct {
	listener *pipeListener
	released chan struct{}
	all      []net.Conn
}

// servePipes answers every request but GET / when it is released.
func servePipes(t *testing.T, limit, reserve, share int, during func(p *pipes)) {
	w := newWorld(t, api.Options{})
	synctest.Test(t, func(t *testing.T) {
		p := &pipes{listener: newPipeListener(), released: make(chan struct{})}
		srv := w.server.HTTPServer(t.Context(), false)
		srv.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/" {
				<-p.released
			}
		})
		var g errgroup.Group
		g.Go(func() error { return srv.Serve(api.LimitListener(p.listener, limit, reserve, share)) })
		during(p)
		for _, c := range p.all {
			_ = c.Close()
		}
		if err := errors.Join(srv.Close(), g.Wait()); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

// visit connects, and leaves the connection idle after one request.
func (p *pipes) visit(from string) *visitor {
	near, far := net.Pipe()
	p.all = append(p.all, near)
	p.listener.conns <- pipeConn{far, &net.TCPAddr{IP: net.ParseIP(from)}}
	v := &visitor{near, bufio.NewReader(near)}
	_ = v.ask() // tested by asking again
	synctest.Wait()
	return v
}

// The connection of a client with few takes the place of the one that has been idle longest, of any client; that
// of a client with many, of its own.
func TestLongestIdleConnectionIsClosed(t *testing.T) {
	for name, c := range map[string]struct {
		from []string // the connections in the order of their last request
		next string
		gone int
	}{
		"of all":                         {[]string{two, one, one, three}, four, 0},
		"its own":                        {[]string{two, one, one, one, three}, one, 1},
		"of all, the client has a share": {[]string{one, two, two, two}, two, 1},
	} {
		t.Run(name, func(t *testing.T) {
			limit := len(c.from)
			servePipes(t, limit, 0, 2, func(p *pipes) {
				var all []*visitor
				for _, from := range c.from {
					all = append(all, p.visit(from))
				}
				all = append(all, p.visit(c.next))
				for i, v := range all {
					if err := v.ask(); (err != nil) != (i == c.gone) {
						t.Errorf("connection %d: %v", i, err)
					}
				}
			})
		})
	}
}

// A connection whose request is being answered is not closed: a client that has many gets no more, and others do.
func TestBusyConnectionsAreKept(t *testing.T) {
	servePipes(t, 8, 2, 2, func(p *pipes) {
		var busy []*visitor
		for range 6 {
			v := p.visit(one)
			if _, err := io.WriteString(v, "GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			busy = append(busy, v)
		}
		if p.visit(one).ask() == nil {
			t.Error("a client of busy connections gets more than its part")
		}
		for _, from := range []string{two, three} {
			if err := p.visit(from).ask(); err != nil {
				t.Errorf("%s: %v", from, err)
			}
		}
		close(p.released)
		for i, v := range busy {
			if _, err := http.ReadResponse(v.in, nil); err != nil {
				t.Errorf("answer %d: %v", i, err)
			}
		}
	})
}
