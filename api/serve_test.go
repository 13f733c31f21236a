package api_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cistern/api"

	"golang.org/x/sync/errgroup"
)

// pipeListener accepts the far ends of pipes.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) dial() net.Conn {
	near, far := net.Pipe()
	l.conns <- far
	return near
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { close(l.closed); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// Neither listener waits for long for a client that is slow on purpose.
func TestSlowClientsAreDropped(t *testing.T) {
	w := newWorld(t, api.Options{})
	for _, admin := range []bool{false, true} {
		for name, c := range map[string]struct {
			sends string
			every time.Duration // a byte more
			most  time.Duration
		}{
			"no header":   {"", 0, 15 * time.Second},
			"slow header": {"GET / HTTP/1.1\r\nX: ", time.Second, 15 * time.Second},
			"slow body":   {"PUT /repos HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n", time.Second, 70 * time.Second},
			"idle":        {"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", 0, 130 * time.Second},
		} {
			t.Run(fmt.Sprintf("%s, admin %t", name, admin), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := newPipeListener()
					srv := w.server.HTTPServer(t.Context(), admin)
					var g errgroup.Group
					g.Go(func() error { return srv.Serve(l) })
					start, conn := time.Now(), l.dial()
					g.Go(func() error {
						_, err := conn.Write([]byte(c.sends))
						for err == nil && c.every > 0 {
							<-time.After(c.every)
							_, err = conn.Write([]byte("1"))
						}
						return nil
					})
					in := bufio.NewReader(conn)
					for {
						if _, err := in.ReadByte(); err != nil {
							break
						}
					}
					if took := time.Since(start); took > c.most {
						t.Errorf("dropped after %s", took)
					}
					if err := errors.Join(conn.Close(), srv.Close()); err != nil {
						t.Error(err)
					}
					if err := g.Wait(); !errors.Is(err, http.ErrServerClosed) {
						t.Error(err)
					}
				})
			})
		}
	}
}

func TestLongHeadersAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := w.server.HTTPServer(t.Context(), false)
	var g errgroup.Group
	g.Go(func() error { return srv.Serve(l) })
	if res := call(t, "GET", "http://"+l.Addr().String()+"/", "", map[string]string{"X": strings.Repeat("x", 600<<10)}, nil); res.StatusCode != 431 {
		t.Errorf("600 KiB of header: %d", res.StatusCode)
	}
	if err := srv.Close(); err != nil {
		t.Error(err)
	}
	if err := g.Wait(); !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}
