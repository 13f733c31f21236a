package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// endpoint is the server of a webhook. It hands requests to the connections of a subscriber, and
// fails some of them by itself.
type endpoint struct {
	w      *deliveries
	name   string
	verify *standardwebhooks.Webhook

	requests chan *posted

	mu   sync.Mutex
	rng  *rand.Rand
	busy map[string]bool // the accounts of the requests in flight
}

// posted is a request that a connection has, or is to get.
type posted struct {
	life   *settledBefore // in which it came
	events []delivered
	answer chan int // its status; 0: the connection ends without one
	gone   <-chan struct{}
	lost   atomic.Bool // its answer did not arrive, so that it comes again
}

// newWebhook returns a subscriber that gets its events by a webhook.
func newWebhook(w *deliveries, name string, rng *rand.Rand, requests int) *subscriber {
	secret := "whsec_" + base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
	verify, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		w.t.Fatal(err)
	}
	e := &endpoint{w: w, name: name, verify: verify, requests: make(chan *posted),
		rng: rand.New(rand.NewPCG(rng.Uint64(), 6)), busy: map[string]bool{}}
	server := httptest.NewServer(e)
	w.t.Cleanup(server.Close)
	c := newSubscriber(w, name, rng, requests)
	c.by, c.whole = e, true
	c.webhook = map[string]any{"url": server.URL, "secrets": []string{secret},
		"requests": requests, "events": 1 + rng.IntN(20)}
	return c
}

// ServeHTTP takes a request, and answers as a connection or chance wants.
func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p, err := e.read(r)
	if err != nil {
		e.w.t.Errorf("%s: %v", e.name, err)
		return
	}
	if !e.begin(p) {
		e.w.t.Errorf("%s: two requests in flight have events of one account", e.name)
	}
	status := e.pass(p, w)
	e.end(p)
	if status == 0 {
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(status)
}

// read checks the signature, and reads the events.
func (e *endpoint) read(r *http.Request) (*posted, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler) // the daemon was killed
	}
	if err := e.verify.Verify(body, r.Header); err != nil {
		return nil, err
	}
	var message struct {
		Type string
		Data []json.RawMessage
	}
	if err := json.Unmarshal(body, &message); err != nil || message.Type != "events" {
		return nil, fmt.Errorf("body %.200s: %w", body, err)
	}
	p := &posted{life: e.w.position(e.name), answer: make(chan int, 1), gone: r.Context().Done()}
	for _, text := range message.Data {
		ev, err := readCistern(text)
		if err != nil {
			return nil, err
		}
		p.events = append(p.events, ev)
	}
	return p, nil
}

// pass hands a request over, and returns the status of its answer.
func (e *endpoint) pass(p *posted, w http.ResponseWriter) (status int) {
	e.mu.Lock()
	chance := e.rng.IntN(40)
	e.mu.Unlock()
	if !e.w.frozen.Load() {
		switch chance {
		case 0:
			w.Header().Set("Retry-After", "1")
			return http.StatusTooManyRequests
		case 1, 2, 3:
			return []int{0, http.StatusInternalServerError, http.StatusGone, http.StatusFound}[chance]
		case 4:
			return 0
		}
	}
	select {
	case e.requests <- p:
	case <-p.gone:
		return 0
	case <-time.After(time.Second): // no connection is open
		return http.StatusServiceUnavailable
	}
	select {
	case status = <-p.answer:
	case <-p.gone:
	}
	if status == http.StatusNoContent && chance == 5 && !e.w.frozen.Load() {
		status = 0
	}
	p.lost.Store(status == 0)
	return status
}

// begin notes the accounts of a request. It reports whether no other request in flight has them.
func (e *endpoint) begin(p *posted) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	free := true
	mine := map[string]bool{}
	for _, ev := range p.events {
		free = free && (mine[ev.did] || !e.busy[ev.did] || ev.did == "")
		mine[ev.did], e.busy[ev.did] = true, true
	}
	return free
}

func (e *endpoint) end(p *posted) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range p.events {
		delete(e.busy, ev.did)
	}
}

// dial begins to take requests, and has the daemon send again at once.
func (e *endpoint) dial(ctx context.Context) (acknowledged, error) {
	c := &postedConnection{endpoint: e, life: e.w.position(e.name), left: make(chan struct{}),
		open: map[uint64]*posted{}}
	if _, err := e.w.request(ctx, "POST", "/subscriptions/"+e.name+"/resume", nil, nil); err != nil {
		return nil, err
	}
	e.w.ledger.count("connections", 1)
	return c, nil
}

// postedConnection is a time in which the endpoint takes requests.
type postedConnection struct {
	*endpoint
	life *settledBefore
	left chan struct{} // closed by leave

	open map[uint64]*posted // by the ids of the events that are not acknowledged
	all  []*posted
}

// next returns the events of the next request.
func (c *postedConnection) next(wait time.Duration) ([]delivered, error) {
	select {
	case p := <-c.requests:
		lost := slices.ContainsFunc(c.all, func(p *posted) bool { return p.lost.Load() })
		again := slices.ContainsFunc(p.events, func(ev delivered) bool { return c.open[ev.id] != nil })
		if lost || again || p.life != c.life { // what comes again comes by a new connection
			p.answer <- http.StatusServiceUnavailable
			return nil, errAway
		}
		c.all = append(c.all, p)
		for _, ev := range p.events {
			c.open[ev.id] = p
		}
		return p.events, nil
	case <-c.left:
		return nil, errAway
	case <-time.After(wait):
		return nil, errEnough
	}
}

// ack acknowledges an event. The last one of a request makes its answer.
func (c *postedConnection) ack(r receipt) error {
	p := c.open[r.id]
	delete(c.open, r.id)
	for _, ev := range p.events {
		if c.open[ev.id] == p {
			return nil
		}
	}
	p.answer <- http.StatusNoContent
	return nil
}

// leave fails the requests that are open. No acknowledgement is surely written.
func (c *postedConnection) leave(bool) (written bool) {
	for id, p := range c.open {
		delete(c.open, id)
		select {
		case p.answer <- http.StatusInternalServerError:
		default: // another event of it has made the answer
		}
	}
	close(c.left)
	return false
}
