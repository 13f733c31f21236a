package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cistern/api"
	"cistern/store"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"
)

// message is any frame of the stream.
type message struct {
	ID      uint64
	Type    string
	Error   string
	Message string
	Record  *struct {
		Live             bool
		DID, Rev, Action string
		Collection, Rkey string
		CID              string
		Record           json.RawMessage
	}
	Account  *struct{ DID, Status string }
	Identity *struct{ DID, Handle, PDS string }
}

func identity(i int) store.Event {
	return store.Event{Kind: store.KindIdentity, DID: fmt.Sprintf("did:plc:%d", i), Handle: "a.test"}
}

func identities(n int) []store.Event {
	out := make([]store.Event, n)
	for i := range out {
		out[i] = identity(i)
	}
	return out
}

func serveLog(t testing.TB, log api.Log, o api.Options) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(api.StreamHandler(log, o))
	t.Cleanup(srv.Close)
	return srv
}

func follow(t testing.TB, url, query string) *websocket.Conn {
	t.Helper()
	ws, res, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(url, "http")+"/stream"+query, nil)
	if err != nil {
		text := []byte("no answer")
		if res != nil {
			text, _ = io.ReadAll(res.Body)
		}
		t.Fatalf("dial %s: %v: %s", query, err, text)
	}
	if res.Header.Get("Cistern-Epoch") == "" {
		t.Error("the upgrade does not say which epoch")
	}
	t.Cleanup(func() { _ = ws.Close() })
	if err := ws.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return ws
}

// next reads one message.
func next(t testing.TB, ws *websocket.Conn) message {
	t.Helper()
	kind, text, err := ws.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	var m message
	if err := json.Unmarshal(text, &m); err != nil || kind != websocket.TextMessage {
		t.Fatalf("message of kind %d %q: %v", kind, text, err)
	}
	return m
}

// ends reads the close frame.
func ends(t testing.TB, ws *websocket.Conn, code int) {
	t.Helper()
	_, text, err := ws.ReadMessage()
	if !websocket.IsCloseError(err, code) {
		t.Errorf("got %q, %v, want close %d", text, err, code)
	}
}

func wantIDs(t testing.TB, ws *websocket.Conn, from, to uint64) {
	t.Helper()
	for id := from; id <= to; id++ {
		if m := next(t, ws); m.ID != id {
			t.Fatalf("got event %d (%s %s), want %d", m.ID, m.Type, m.Error, id)
		}
	}
}

func TestStreamReplayThenTail(t *testing.T) {
	t.Parallel()
	log := newFakeLog(identities(1000)...)
	srv := serveLog(t, log, api.Options{PageBytes: 1000})
	all, some, live, ahead := follow(t, srv.URL, "?cursor=0"), follow(t, srv.URL, "?cursor=700&epoch=epoch1"), follow(t, srv.URL, ""), follow(t, srv.URL, "?cursor=1001")
	wantIDs(t, all, 1, 1000)
	wantIDs(t, some, 700, 1000)
	for i := range 50 {
		log.add(identity(i))
		for _, ws := range []*websocket.Conn{all, some, ahead} {
			wantIDs(t, ws, uint64(1001+i), uint64(1001+i))
		}
	}
	wantIDs(t, live, 1001, 1050)
}

// Hidden events leave gaps, and a page of nothing but hidden events is no end.
func TestStreamSkipsHidden(t *testing.T) {
	t.Parallel()
	events := identities(500)
	for i := range events {
		if i%100 != 99 {
			events[i].Kind = 0
		}
	}
	ws := follow(t, serveLog(t, newFakeLog(events...), api.Options{PageEvents: 7}).URL, "?cursor=0")
	for id := uint64(100); id <= 500; id += 100 {
		wantIDs(t, ws, id, id)
	}
}

func TestStreamCursors(t *testing.T) {
	t.Parallel()
	log := newFakeLog(identities(10)...)
	log.tail = 5
	srv := serveLog(t, log, api.Options{})
	for _, c := range []struct{ query, name string }{
		{"?cursor=12", "FutureCursor"}, // head + 2
		{"?cursor=18446744073709551615", "FutureCursor"},
		{"?cursor=4", "OutdatedCursor"},             // below the tail
		{"?cursor=7&epoch=other", "OutdatedCursor"}, // ids of another log
		{"?cursor=0&epoch=other", "OutdatedCursor"}, // likewise: nothing of what the client has is worth anything
		{"?epoch=other%22%0a", "OutdatedCursor"},    // and is quoted
	} {
		ws := follow(t, srv.URL, c.query)
		m := next(t, ws)
		if m.Type != "error" || m.Error != c.name || m.Message == "" {
			t.Errorf("%s: %+v", c.query, m)
		}
		if foreign := strings.Contains(c.query, "epoch"); strings.Contains(m.Message, "of epoch") != foreign || strings.Contains(m.Message, "below") == foreign && c.name == "OutdatedCursor" {
			t.Errorf("%s: %s", c.query, m.Message)
		}
		ends(t, ws, websocket.ClosePolicyViolation)
	}
	wantIDs(t, follow(t, srv.URL, "?cursor=0"), 5, 10)
	wantIDs(t, follow(t, srv.URL, "?cursor=5"), 5, 10)
}

func TestStreamRefusals(t *testing.T) {
	t.Parallel()
	srv := serveLog(t, newFakeLog(), api.Options{SubscribersMax: 1})
	for _, c := range []struct {
		query  string
		dial   bool
		status int
		name   string
	}{
		{"?cursor=abc", true, 400, "InvalidRequest"},
		{"?cursor=-1", true, 400, "InvalidRequest"},
		{"?cursor=", true, 400, "InvalidRequest"},                     // a client that lost its cursor should hear of it
		{"?cursor=18446744073709551616", true, 400, "InvalidRequest"}, // 2^64
		{"?cursor=%zz", true, 400, "InvalidRequest"},
		{"", false, 426, "UpgradeRequired"}, // a browser
	} {
		var res *http.Response
		var err error
		if c.dial {
			_, res, err = websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(srv.URL, "http")+"/stream"+c.query, nil)
			if !errors.Is(err, websocket.ErrBadHandshake) {
				t.Fatalf("%s: %v", c.query, err)
			}
		} else if res, err = http.Get(srv.URL + "/stream" + c.query); err != nil {
			t.Fatal(err)
		}
		var e struct{ Error, Message string }
		if err := json.NewDecoder(res.Body).Decode(&e); err != nil || res.StatusCode != c.status || e.Error != c.name || e.Message == "" {
			t.Errorf("%s: %d %+v %v", c.query, res.StatusCode, e, err)
		}
		_ = res.Body.Close()
	}
	first := follow(t, srv.URL, "")
	if _, res, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(srv.URL, "http")+"/stream", nil); err == nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("second subscriber of one: %v", err)
	}
	// The place comes back when the first goes, with or without a farewell.
	_ = first.NetConn().Close()
	for deadline := time.Now().Add(10 * time.Second); ; {
		ws, _, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(srv.URL, "http")+"/stream", nil)
		if err == nil {
			_ = ws.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the place of a subscriber that went away is not released")
		}
		<-time.After(10 * time.Millisecond)
	}
}

func TestStreamPeer(t *testing.T) {
	t.Parallel()
	log := newFakeLog()
	srv := serveLog(t, log, api.Options{})

	ws := follow(t, srv.URL, "") // a ping is answered
	pong := make(chan string, 1)
	ws.SetPongHandler(func(text string) error { pong <- text; return nil })
	if err := ws.WriteControl(websocket.PingMessage, []byte("hello"), time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	g.Go(func() error { _, _, err := ws.ReadMessage(); return err })
	if got := <-pong; got != "hello" {
		t.Errorf("pong %q", got)
	}
	// a close is answered with a close
	if err := ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := g.Wait(); !websocket.IsCloseError(err, 1000) {
		t.Errorf("closing: %v", err)
	}

	for _, size := range []int{1, 100_000} { // a message is not wanted, however long
		ws = follow(t, srv.URL, "")
		_ = ws.WriteMessage(websocket.TextMessage, make([]byte, size)) // the stream may end within a long one
		if _, _, err := ws.ReadMessage(); err == nil {
			t.Errorf("message of %d bytes: the stream goes on", size)
		}
	}
}

func TestStreamReadError(t *testing.T) {
	t.Parallel()
	log := newFakeLog(identities(3)...)
	log.fail = fmt.Errorf("disk: %w", store.ErrCorrupt)
	ws := follow(t, serveLog(t, log, api.Options{}).URL, "?cursor=1")
	if m := next(t, ws); m.Error != "InternalError" || strings.Contains(m.Message, "disk") {
		t.Errorf("%+v", m)
	}
	ends(t, ws, websocket.CloseInternalServerErr)
}

// What is written between the look at the log and the wait for a change is not waited for.
func TestStreamMissesNoChange(t *testing.T) {
	t.Parallel()
	log := newFakeLog(identities(3)...)
	log.looked = func() { log.add(identity(4)) }
	srv := serveLog(t, log, api.Options{})
	wantIDs(t, follow(t, srv.URL, "?cursor=4"), 4, 4)
}

// A subscriber at the head is woken by each event: the stream looks for events at no other time.
func TestStreamWakes(t *testing.T) {
	t.Parallel()
	log := newFakeLog(identities(1)...)
	ws := follow(t, serveLog(t, log, api.Options{}).URL, "?cursor=2")
	for i := range 300 {
		log.add(identity(i))
		if m := next(t, ws); m.ID != uint64(i+2) {
			t.Fatalf("got event %d, want %d", m.ID, i+2)
		}
	}
}

// A consumer that stops reading for too long gets an error frame, after whole frames.
func TestStreamSlowConsumer(t *testing.T) {
	t.Parallel()
	events := posts(40_000) // 18 MB: more than the kernel buffers
	srv := serveLog(t, newFakeLog(events...), api.Options{WriteTimeout: 300 * time.Millisecond})
	ws := follow(t, srv.URL, "?cursor=1")
	wantIDs(t, ws, 1, 1)
	<-time.After(time.Second)
	for id := uint64(2); ; id++ {
		m := next(t, ws)
		if m.Type == "error" {
			if m.Error != "ConsumerTooSlow" {
				t.Errorf("%+v", m)
			}
			break
		}
		if m.ID != id {
			t.Fatalf("got %d, want %d", m.ID, id)
		}
	}
	ends(t, ws, websocket.ClosePolicyViolation)
}

// Long pages that a consumer does not read cost only so much memory: other consumers wait for theirs, and get them all.
func TestStreamHoldsLongPages(t *testing.T) {
	t.Parallel()
	const n = 20
	events := posts(n)
	for i := range events {
		events[i].Record = blownUp(70_000) // 980 KB of JSON, 20 MB in all: more than the kernel buffers
	}
	handler, uses := api.StreamHandlerHolding(newFakeLog(events...), api.Options{WriteTimeout: time.Minute, PageBytes: 1000}, 1<<20)
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	slow := follow(t, srv.URL, "?cursor=1")
	lasts(t, func() bool { return uses() == 1 }, nil) // its page waits for the consumer
	other, done := follow(t, srv.URL, "?cursor=2"), make(chan struct{})
	var g errgroup.Group
	g.Go(func() error {
		defer close(done)
		return longIDs(other, 2, n)
	})
	lasts(t, func() bool { return uses() == 2 }, done)
	if err := errors.Join(longIDs(slow, 1, n), g.Wait()); err != nil {
		t.Error(err)
	}
}

// longIDs reads events, of which it looks at the beginning only: they are long.
func longIDs(ws *websocket.Conn, from, to int) error {
	for id := from; id <= to; id++ {
		_, text, err := ws.ReadMessage()
		if want := fmt.Sprintf(`{"id":%d,`, id); err != nil || !bytes.HasPrefix(text, []byte(want)) {
			return fmt.Errorf("got %.60q, want event %d: %w", text, id, err)
		}
	}
	return nil
}

// lasts waits until a condition has held for some time. That done is closed before is a failure.
func lasts(t *testing.T, holds func() bool, done <-chan struct{}) {
	t.Helper()
	for since := time.Now(); time.Since(since) < 200*time.Millisecond; time.Sleep(time.Millisecond) {
		if !holds() {
			since = time.Now()
		}
		select {
		case <-done:
			t.Fatal("all pages came while one was held")
		default:
		}
	}
}

// Subscribers at the same place share the work of encoding.
func TestStreamShares(t *testing.T) {
	t.Parallel()
	log := newFakeLog(posts(2000)...)
	pager := api.NewPager(log, api.Options{})
	var g errgroup.Group
	want := make([][]byte, 8)
	for i := range want {
		g.Go(func() error {
			for cursor := uint64(1); cursor <= 2000; {
				frames, next, err := pager.Read(t.Context(), cursor)
				if err != nil {
					return err
				}
				want[i], cursor = append(want[i], frames...), next
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for i := range want {
		if !bytes.Equal(want[0], want[i]) {
			t.Fatalf("reader %d got other pages than reader 0", i)
		}
	}
	if pages := len(want[0])/(128<<10) + 1; log.reads > 2*pages {
		t.Errorf("%d reads for %d pages and %d readers", log.reads, pages, len(want))
	}
}

// TestSharedPageAges: after a second a page is read anew, so that what was hidden meanwhile is sent
// to no further subscriber (invariant 2).
func TestSharedPageAges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := newFakeLog(posts(10)...)
		pager := api.NewPager(log, api.Options{})
		for i, wait := range []time.Duration{0, 999 * time.Millisecond, time.Millisecond} {
			time.Sleep(wait)
			if _, _, err := pager.Read(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			if want := []int{1, 1, 2}[i]; log.reads != want {
				t.Errorf("the log was read %d times, not %d, after a read and %s more", log.reads, want, wait)
			}
		}
	})
}

// A subscriber that waits for a page does not fail with the one that encodes it.
func TestPageOutlivesItsReader(t *testing.T) {
	t.Parallel()
	log := newFakeLog(identities(10)...)
	pager := api.NewPager(log, api.Options{})
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := pager.Read(gone, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("read with an ended context: %v", err)
	}
	frames, next, err := pager.Read(t.Context(), 1)
	if err != nil || next != 11 || len(splitFrames(t, frames)) != 10 {
		t.Errorf("next %d, %v", next, err)
	}
}
