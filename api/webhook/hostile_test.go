package webhook_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// pipes is a network in memory: each connection is a pipe, so that it works in a synctest bubble.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	close(p.closed)
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial() (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.conns <- far:
		return near, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// hostile is the endpoint of a webhook. It checks every request, and answers as it likes.
type hostile struct {
	mu  sync.Mutex
	rng *rand.Rand // mu guards, as all below
	// polite: every answer takes the events, but those of script, which come first.
	polite  bool
	script  []func(http.ResponseWriter, *http.Request)
	secrets []string // any of which a signature must match
	dids    []string // accounts of the events, from id 1 on
	taken   map[uint64]int
	final   map[uint64]bool // must not come any more
	asked   time.Time       // no request is to begin before
	askedAt time.Time       // when it was asked
	anew    time.Time       // when the last request made before the webhook was put has ended

	problems []string
	requests int
	flying   int
	most     int            // requests at a time that are allowed
	ids      map[string]int // how often each id of a request came
	failed   string         // the id of the last request that failed, if one is sent at a time
}

func newHostile(seed uint64) *hostile {
	return &hostile{rng: rand.New(rand.NewPCG(seed, 99)), taken: map[uint64]int{}, final: map[uint64]bool{},
		ids: map[string]int{}, most: 16}
}

func (h *hostile) problem(format string, args ...any) {
	h.problems = append(h.problems, fmt.Sprintf(format, args...))
}

// restart forgets what was asked: the webhook begins anew.
func (h *hostile) restart() { h.asked, h.anew = time.Time{}, time.Now().Add(6*time.Second) }

// posted is the body of a request.
type posted struct {
	Type      string
	Timestamp time.Time
	Data      []struct {
		ID       uint64
		Type     string
		From, To uint64
		Identity struct{ DID string }
	}
}

func (h *hostile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Host != "hook.test" || r.URL.Path != "/in" {
		h.mu.Lock()
		h.problem("a request came to %s%s", r.Host, r.URL.Path)
		h.mu.Unlock()
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // it was cut
	}
	h.mu.Lock()
	h.flying++
	answer := h.judge(r, body)
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.flying--
	}()
	answer(w, r)
}

// judge checks a request and chooses the answer. mu is held.
func (h *hostile) judge(r *http.Request, body []byte) func(http.ResponseWriter, *http.Request) {
	h.requests++
	now := time.Now()
	if now.Before(h.asked) && now.After(h.askedAt) {
		h.problem("a request came at %s, before %s", now, h.asked)
	}
	if h.flying > h.most {
		h.problem("%d requests at a time", h.flying)
	}
	matches := 0
	for _, secret := range h.secrets {
		wh, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			panic(err)
		}
		if wh.Verify(body, r.Header) == nil {
			matches++
		}
	}
	if matches != len(h.secrets) {
		h.problem("%d of %d secrets verify %v", matches, len(h.secrets), r.Header)
	}
	if r.Header.Get("User-Agent") != "cistern/test" || r.Header.Get("Content-Type") != "application/json" || r.Method != "POST" {
		h.problem("%s with header %v", r.Method, r.Header)
	}
	var p posted
	if err := json.Unmarshal(body, &p); err != nil || p.Type != "events" || len(p.Data) == 0 || p.Timestamp.IsZero() {
		h.problem("%s: %v", body, err)
	}
	h.order(&p)
	id := r.Header.Get("Webhook-Id")
	h.ids[id]++
	if h.failed != "" && h.failed != id {
		h.problem("%s comes while %s failed", id, h.failed)
	}
	asked := h.asked
	answer, good := h.choose(now)
	switch {
	case now.Before(h.anew):
		h.asked = asked
	case h.asked != asked:
		h.askedAt = now
	}
	if h.failed = ""; good {
		for _, ev := range p.Data {
			h.taken[ev.ID]++
			h.final[ev.ID] = true
		}
	} else if h.most == 1 {
		h.failed = id
	}
	return answer
}

// order checks that of each account all earlier events were taken.
func (h *hostile) order(p *posted) {
	here, last := map[uint64]bool{}, uint64(0)
	for _, ev := range p.Data {
		if ev.ID <= last {
			h.problem("event %d comes after %d", ev.ID, last)
		}
		last, here[ev.ID] = ev.ID, true
		if h.final[ev.ID] {
			h.problem("event %d was taken, and comes again", ev.ID)
		}
		did := h.dids[ev.ID-1]
		if ev.Identity.DID != did {
			h.problem("event %d is about %q, not %s", ev.ID, ev.Identity.DID, did)
		}
		for id := uint64(1); id < ev.ID; id++ {
			if h.dids[id-1] == did && h.taken[id] == 0 && !here[id] {
				h.problem("event %d comes before %d of the same account", ev.ID, id)
			}
		}
	}
}

func status(code int, header ...string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
	}
}

// choose chooses an answer. good means that it takes the events.
func (h *hostile) choose(now time.Time) (answer func(http.ResponseWriter, *http.Request), good bool) {
	if len(h.script) > 0 {
		answer, h.script = h.script[0], h.script[1:]
		return answer, false
	}
	n := h.rng.IntN(100)
	if h.polite || n < 60 {
		return status([]int{200, 201, 204, 299}[h.rng.IntN(4)]), true
	}
	wait := time.Duration(1+h.rng.IntN(200)) * time.Second
	switch {
	case n < 64:
		return status([]int{301, 302, 307, 308, 304}[h.rng.IntN(5)], "Location", "http://elsewhere.test/in"), false
	case n < 70:
		return status([]int{400, 401, 404, 500, 501}[h.rng.IntN(5)]), false
	case n < 71:
		return status(410), false
	case n < 76:
		h.asked = now.Add(wait)
		after := strconv.Itoa(int(wait / time.Second))
		if h.rng.IntN(2) == 0 {
			h.asked = now.Truncate(time.Second).Add(wait)
			after = h.asked.UTC().Format(http.TimeFormat)
		}
		return status([]int{429, 502, 503, 504}[h.rng.IntN(4)], "Retry-After", after), false
	case n < 78:
		return status(503), false
	case n < 82: // hangs
		return func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, false
	case n < 86: // takes the events, with an answer that has no end
		return func(w http.ResponseWriter, _ *http.Request) {
			for b := make([]byte, 32<<10); ; {
				if _, err := w.Write(b); err != nil {
					return
				}
			}
		}, true
	}
	text, pause := h.garbage(n)
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		for len(text) > 0 {
			if _, err := io.WriteString(conn, text[:1]); err != nil {
				return
			}
			text = text[1:]
			time.Sleep(pause)
		}
	}, false
}

// garbage returns an answer that is not HTTP, or ends too early, or is too slow.
func (h *hostile) garbage(n int) (text string, pause time.Duration) {
	switch {
	case n < 90:
		return "", 0 // is cut
	case n < 94:
		return "HTTP/1.1 200 OK\r\nContent-Le", 0
	case n < 97:
		return "HELLO 200\r\n\r\n", 0
	}
	return "HTTP/1.1 200 OK\r\nX: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", time.Second
}
