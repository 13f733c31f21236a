package firehose_test

import (
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"cistern/ingest/firehose"
	"cistern/store"
)

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]struct {
		status int
		after  string
		long   bool
	}{
		"seconds":         {http.StatusTooManyRequests, "3600", true},
		"date":            {http.StatusServiceUnavailable, time.Now().Add(time.Hour).UTC().Format(http.TimeFormat), true},
		"past":            {http.StatusServiceUnavailable, time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat), false},
		"nonsense":        {http.StatusTooManyRequests, "soon", false},
		"of another code": {http.StatusForbidden, "3600", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newServer(t, func(_ int, c *client) {
				c.after(1, 1)
				c.stay()
			})
			h.refuse = func(n int, w http.ResponseWriter, _ string) bool {
				if n == 0 {
					w.Header().Set("Retry-After", answer.after)
					w.WriteHeader(answer.status)
				}
				return n == 0
			}
			s := newStage(t, h.source, func(o *firehose.Options) { o.RetryMax = 60 * time.Millisecond })
			began := time.Now()
			s.run()
			s.sees(h.url, 1)
			// five times RetryMax is as long as a host may ask for
			waited := time.Since(began) >= 300*time.Millisecond
			if answer.long && !waited {
				t.Errorf("came back after %s", time.Since(began))
			}
			if st := s.status(h.url); st.LastFailure.Kind != "http" || !strings.Contains(st.LastFailure.Detail, fmt.Sprint(answer.status)) {
				t.Errorf("status %+v", st)
			}
		})
	}
}

// TestHandshakeFaults are failures with a kind, and each is followed by another attempt.
func TestHandshakeFaults(t *testing.T) {
	t.Parallel()
	h := newServer(t, func(_ int, c *client) {
		c.after(1, 1)
		c.stay()
	})
	hijack := func(w http.ResponseWriter, answer string, n int) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		for range n {
			if _, err := conn.Write([]byte(answer)); err != nil {
				return
			}
		}
	}
	h.refuse = func(n int, w http.ResponseWriter, key string) bool {
		switch n {
		case 0:
			http.Redirect(w, &http.Request{Method: "GET"}, "http://127.0.0.1:1/", http.StatusFound)
		case 1:
			hijack(w, "HTTP/1.1 200 OK\r\n", 1)
		case 2: // headers without end
			hijack(w, "HTTP/1.1 101 Switching Protocols\r\n", 1)
		case 3: // what we did not offer
			sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
			hijack(w, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "+
				base64.StdEncoding.EncodeToString(sum[:])+"\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n\r\n", 1)
		case 4:
			hijack(w, "HTTP/1.1 101 Switching Protocols\r\n"+strings.Repeat("X: y\r\n", 100_000), 10)
		default:
			return false
		}
		return true
	}
	s := newStage(t, h.source)
	s.run()
	s.sees(h.url, 1)
	if got := h.asked(); len(got) != 6 {
		t.Errorf("asked with cursors %q", got)
	}
	if st := s.status(h.url); st.LastFailure.Kind != "dial" || !strings.Contains(st.LastFailure.Detail, "bytes") || st.Failures != 5 || !strings.Contains(s.text.String(), "not offered") {
		t.Errorf("status %+v", st)
	}
}

// TestLongFailure is what a host says that speaks no HTTP: it does not fill the log, nor the
// answers that name it.
func TestLongFailure(t *testing.T) {
	t.Parallel()
	h := newServer(t, func(_ int, c *client) { c.stay() })
	h.refuse = func(_ int, w http.ResponseWriter, _ string) bool {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return true
		}
		defer conn.Close()
		fmt.Fprintf(conn, "%s\r\n", strings.Repeat("\x01", 200_000))
		return true
	}
	s := newStage(t, h.source)
	s.run()
	s.until("two failures", func() bool { return s.status(h.url).Failures > 1 })
	if st := s.status(h.url); len(st.LastFailure.Detail) > 1000 || !strings.Contains(st.LastFailure.Detail, "malformed") {
		t.Errorf("%d bytes: %.200q", len(st.LastFailure.Detail), st.LastFailure.Detail)
	}
	if text := s.text.String(); len(text) > 10_000 || !strings.Contains(text, "malformed") {
		t.Errorf("%d bytes in the log: %.200q", len(text), text)
	}
}

func TestRefusedConnections(t *testing.T) {
	t.Parallel()
	s := newStage(t, func(o *firehose.Options) {
		o.Sources = []store.Source{{URL: "ws://127.0.0.1:1"}}
	})
	s.run()
	s.until("ten failures", func() bool { return s.status("ws://127.0.0.1:1").Failures >= 10 })
	st := s.status("ws://127.0.0.1:1")
	if st.Running || st.LastFailure.Kind != "dial" || st.LastFailure.At.IsZero() {
		t.Errorf("status %+v", st)
	}
	if n := strings.Count(s.text.String(), "source failed"); n > 5 {
		t.Errorf("%d lines in the log", n)
	}
}

// TestPrivateAddresses are not connected to by default.
func TestPrivateAddresses(t *testing.T) {
	t.Parallel()
	h := newServer(t, func(_ int, c *client) { c.stay() })
	s := newStage(t, h.source, func(o *firehose.Options) { o.AllowPrivate = false })
	s.run()
	s.until("a failure", func() bool { return s.status(h.url).LastFailure.Kind == "dial" })
	if got := h.asked(); len(got) != 0 {
		t.Errorf("it was connected to %d times", len(got))
	}
}
