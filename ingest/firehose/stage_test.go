package firehose_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cistern/ingest/firehose"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/fxamacker/cbor/v2"
	"github.com/gorilla/websocket"
)

// stage is a Runner's sources without shards, and what they handed over.
type stage struct {
	t     *testing.T
	store *store.Store
	r     *firehose.Sources
	wakes atomic.Int64
	text  lockedBuffer // the log

	mu   sync.Mutex
	seen map[string][]int64    // seqs by source
	hold func(*firehose.Event) // nil writes each
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newStage(t *testing.T, change ...func(*firehose.Options)) *stage {
	return newStageOn(t, storetest.Open(t, store.Options{}), change...)
}

func newStageOn(t *testing.T, db *store.Store, change ...func(*firehose.Options)) *stage {
	t.Helper()
	s := &stage{t: t, store: db, seen: map[string][]int64{}}
	o := firehose.Options{
		Store: db, AllowPrivate: true, Wake: func() { s.wakes.Add(1) },
		RetryBase: time.Millisecond, RetryMax: 20 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(&s.text, nil)),
	}
	for _, f := range change {
		f(&o)
	}
	var err error
	if s.r, err = firehose.New(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.text.String())
		}
	})
	return s
}

// take is what the sources hand events to.
func (s *stage) take(_ context.Context, e *firehose.Event) error {
	source, seq := e.Source.URL(), e.Frame.Seq
	s.mu.Lock()
	hold := s.hold
	s.mu.Unlock()
	var err error
	if hold != nil {
		hold(e)
	} else {
		err = e.Write()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[source] = append(s.seen[source], seq)
	return err
}

// run runs the sources until the test ends, or stop is called, which says what they took along.
func (s *stage) run() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.r.Run(ctx, s.take) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				s.t.Error(err)
			}
		case <-time.After(10 * time.Second):
			s.t.Error("the sources do not end")
		}
	})
	s.t.Cleanup(stop)
	return stop
}

func (s *stage) holding(f func(*firehose.Event)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hold = f
}

// seqs returns the seqs of the events handed over from a source, in order.
func (s *stage) seqs(source string) []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seen[source])
}

func (s *stage) sees(source string, want ...int64) {
	s.t.Helper()
	s.until("events "+strings.Trim(strings.Join(strings.Fields(sprint(want)), " "), "[]")+" of "+source, func() bool { return slices.Equal(s.seqs(source), want) })
}

func (s *stage) status(source string) firehose.Status {
	for _, st := range s.r.Status() {
		if st.URL == source {
			return st
		}
	}
	return firehose.Status{}
}

func (s *stage) cursor(source string) int64 {
	seq, ok, err := s.store.Cursor(source)
	if err != nil {
		s.t.Error(err)
	}
	if !ok {
		return -1
	}
	return seq
}

// reconciling says whether a source's listing is to be compared.
func (s *stage) reconciling(source string) bool {
	row, ok, err := s.store.Reconciliation(firehose.Listing(source))
	if err != nil {
		s.t.Error(err)
	}
	return ok && row == store.Reconciliation{}
}

// until waits as long as events are read: a busy machine slows everything, but stops nothing.
func (s *stage) until(what string, ok func() bool) {
	s.t.Helper()
	var read int64
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		var now int64
		for _, src := range s.r.Status() {
			now += src.Events
		}
		if now != read {
			read, deadline = now, time.Now().Add(10*time.Second)
		}
		if time.Now().After(deadline) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.t.Fatalf("waited in vain for %s; status %+v, seen %v", what, s.r.Status(), s.seen)
		}
	}
}

// server is a host whose every connection follows a script.
type server struct {
	*httptest.Server
	t      *testing.T
	url    string // as a source
	script func(n int, c *client)

	mu      sync.Mutex
	cursors []string // asked for, by connection; "-" for none
	agents  []string
	open    sync.WaitGroup
	// answers itself; key is of the handshake
	refuse func(n int, w http.ResponseWriter, key string) bool
}

// client is one connection to a firehose.
type client struct {
	*websocket.Conn
	t      *testing.T
	cursor int64 // -1 for none
	gone   chan struct{}
}

// newServer serves script, which is called for each connection with its number from 0. The
// connection is closed when it returns.
func newServer(t *testing.T, script func(n int, c *client)) *server {
	h := &server{t: t, script: script}
	h.Server = httptest.NewServer(h)
	h.url = "ws" + strings.TrimPrefix(h.URL, "http")
	t.Cleanup(func() {
		h.Close()
		h.open.Wait()
	})
	return h
}

func (h *server) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	h.open.Add(1)
	defer h.open.Done()
	if req.URL.Path != "/xrpc/com.atproto.sync.subscribeRepos" {
		h.t.Errorf("asked for %s", req.URL)
	}
	h.mu.Lock()
	n, cursor := len(h.cursors), "-"
	if req.URL.Query().Has("cursor") {
		cursor = req.URL.Query().Get("cursor")
	}
	h.cursors, h.agents = append(h.cursors, cursor), append(h.agents, req.UserAgent())
	h.mu.Unlock()
	if h.refuse != nil && h.refuse(n, w, req.Header.Get("Sec-WebSocket-Key")) {
		return
	}
	up := websocket.Upgrader{WriteBufferSize: 1 << 20}
	conn, err := up.Upgrade(w, req, nil)
	if err != nil {
		var bad websocket.HandshakeError
		if errors.As(err, &bad) { // any other error: the client hung up, or the test has ended
			h.t.Error(err)
		}
		return
	}
	c := &client{Conn: conn, t: h.t, cursor: -1, gone: make(chan struct{})}
	if cursor != "-" {
		if c.cursor, err = strconv.ParseInt(cursor, 10, 64); err != nil {
			h.t.Error(err)
		}
	}
	defer conn.Close()
	h.script(n, c)
}

func (h *server) asked() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.cursors)
}

// source names the firehose in Options.
func (h *server) source(o *firehose.Options) {
	o.Sources = append(o.Sources, store.Source{URL: h.URL})
}

// send sends messages; that the other side has gone is found out by stay.
func (c *client) send(messages ...[]byte) {
	for _, m := range messages {
		_ = c.WriteMessage(websocket.BinaryMessage, m)
	}
}

// listen answers pings.
func (c *client) listen() {
	go func() {
		defer close(c.gone)
		for {
			if _, _, err := c.ReadMessage(); err != nil {
				return
			}
		}
	}()
}

// stay answers pings until the other side has gone.
func (c *client) stay() {
	c.listen()
	<-c.gone
}

func encode(parts ...any) []byte {
	var out []byte
	for _, p := range parts {
		b, err := cbor.CoreDetEncOptions().EncMode()
		if err != nil {
			panic(err)
		}
		part, err := b.Marshal(p)
		if err != nil {
			panic(err)
		}
		out = append(out, part...)
	}
	return out
}

func header(kind string) map[string]any { return map[string]any{"op": 1, "t": kind} }

// account is an #account event.
func account(seq int64) []byte {
	return encode(header("#account"), map[string]any{"seq": seq, "did": storetest.DID(int(seq)), "time": "2026-01-02T03:04:05Z", "active": true})
}

func accounts(from, to int64) (all [][]byte) {
	for seq := from; seq <= to; seq++ {
		all = append(all, account(seq))
	}
	return all
}

func info(name string) []byte {
	return encode(header("#info"), map[string]any{"name": name, "message": "so it is"})
}

func failure(name string) []byte {
	return encode(map[string]any{"op": -1}, map[string]any{"error": name, "message": "so it is"})
}

// after returns the events from..to that a well-behaved host sends in answer to a cursor.
func (c *client) after(from, to int64) {
	c.send(accounts(max(from, c.cursor+1), to)...)
}

func sprint(seqs []int64) string {
	var words []string
	for _, seq := range seqs {
		words = append(words, strconv.FormatInt(seq, 10))
	}
	return strings.Join(words, " ")
}
