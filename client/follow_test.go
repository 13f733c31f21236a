package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/client"

	"github.com/gorilla/websocket"
)

// visit is what a fake daemon does with one request of a stream.
type visit func(t *testing.T, w http.ResponseWriter, r *http.Request)

// fakeDaemon plays the visits one after the other, and keeps the queries of the requests.
type fakeDaemon struct {
	*httptest.Server
	t    *testing.T
	head uint64

	mu      sync.Mutex
	visits  []visit
	queries []url.Values
}

func newFakeDaemon(t *testing.T, head uint64, visits ...visit) *fakeDaemon {
	f := &fakeDaemon{t: t, head: head, visits: visits}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *fakeDaemon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/stats" {
		fmt.Fprintf(w, `{"log":{"epoch":"e1","tail":1,"head":%d}}`, f.head)
		return
	}
	f.mu.Lock()
	f.queries = append(f.queries, r.URL.Query())
	if len(f.visits) == 0 {
		f.mu.Unlock()
		f.t.Errorf("one request too many: %s", r.URL)
		http.Error(w, "done", http.StatusTeapot)
		return
	}
	v := f.visits[0]
	f.visits = f.visits[1:]
	f.mu.Unlock()
	v(f.t, w, r)
}

// sends accepts a stream and sends messages; for "?" it waits for an update of the filter instead.
// The end of the messages ends the connection without a farewell.
func sends(messages ...string) visit {
	return func(t *testing.T, w http.ResponseWriter, r *http.Request) {
		up := websocket.Upgrader{}
		ws, err := up.Upgrade(w, r, http.Header{"Cistern-Epoch": {"e1"}})
		if err != nil {
			t.Error(err)
			return
		}
		defer ws.Close()
		for _, m := range messages {
			if m == "?" {
				if _, got, err := ws.ReadMessage(); err != nil || !strings.Contains(string(got), `{"type":"update"`) {
					t.Errorf("got %q, %v, want an update", got, err)
				}
			} else if err := ws.WriteMessage(websocket.TextMessage, []byte(m)); err != nil {
				t.Error(err)
			}
		}
	}
}

func refuses(status int) visit {
	return func(_ *testing.T, w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, `{"error":"Odd","message":"as the\u001b[2J test wants"}`)
	}
}

func identity(id int) string {
	return fmt.Sprintf(`{"id":%d,"type":"identity","identity":{"did":"did:plc:a"}}`, id)
}

// outcome is what a call of Follow did.
type outcome struct {
	ids    []uint64
	nexts  []uint64 // of Lost
	losses []string
	err    error
}

// follow follows f, until the event with id last if there is one.
func (f *fakeDaemon) follow(o client.Follow, last uint64) (got outcome) {
	c := client.New(f.URL, "", "it with --url")
	c.Hurry(time.Millisecond, 5*time.Millisecond)
	o.Event = func(e *client.Event) error {
		if got.ids = append(got.ids, e.ID); e.ID == last {
			return client.ErrStop
		}
		return nil
	}
	o.Lost = func(err error, next uint64, _ time.Duration) {
		got.nexts, got.losses = append(got.nexts, next), append(got.losses, err.Error())
	}
	ctx, cancel := context.WithTimeout(f.t.Context(), 20*time.Second)
	defer cancel()
	got.err = c.Follow(ctx, o)
	if ctx.Err() != nil {
		f.t.Error("Follow did not end")
	}
	return got
}

// TestFollowFilter checks the parameters of a stream.
func TestFollowFilter(t *testing.T) {
	t.Parallel()
	no, zero, seven := false, uint64(0), uint64(7)
	for _, row := range []struct {
		follow client.Follow
		want   string
	}{
		{client.Follow{}, "cursor=42&epoch=e1"}, // the next event, by its id
		{client.Follow{Cursor: &zero}, "cursor=0"},
		{client.Follow{Cursor: &seven}, "cursor=7"},
		{client.Follow{UntilHead: true}, "cursor=0"},
		{client.Follow{Since: time.UnixMicro(12345)}, "since=12345"},
		{client.Follow{Since: time.UnixMicro(12345), UntilHead: true}, "since=12345"},
		{client.Follow{Cursor: &zero, Filter: client.Filter{Collections: []string{"a.b.c", "a.b.*"}, DIDs: []string{"did:web:a"},
			Kinds: []string{"record"}, Actions: []string{"create", "delete"}, Live: &no}},
			"actions=create&actions=delete&collections=a.b.c&collections=a.b.%2A&cursor=0&dids=did%3Aweb%3Aa&kinds=record&live=false"},
	} {
		f := newFakeDaemon(t, 41, sends(identity(41)))
		if got := f.follow(row.follow, 41); got.err != nil || f.queries[0].Encode() != row.want {
			t.Errorf("asked for %s (%v), want %s", f.queries[0].Encode(), got.err, row.want)
		}
	}
}

// TestFollowConnectsAgain loses connections in every way, and misses and repeats nothing.
func TestFollowConnectsAgain(t *testing.T) {
	t.Parallel()
	slow := `{"type":"error","error":"ConsumerTooSlow","message":"did not read"}`
	f := newFakeDaemon(t, 4, sends(), sends(identity(5), identity(6)), refuses(503), refuses(429),
		sends(identity(9), slow), sends("?", `{"type":"updated","id":40}`), sends(identity(41)))
	got := f.follow(client.Follow{}, 41)
	if want := []uint64{5, 6, 9, 41}; got.err != nil || !slices.Equal(got.ids, want) {
		t.Errorf("events %v (%v), want %v", got.ids, got.err, want)
	}
	// The last place is that of the answer: events that the filter left out move it.
	if want := []uint64{5, 7, 7, 7, 10, 40}; !slices.Equal(got.nexts, want) {
		t.Errorf("lost at %v, want %v (%q)", got.nexts, want, got.losses)
	}
	for i, want := range []string{"5", "5", "7", "7", "7", "10", "40"} {
		if q := f.queries[i]; q.Get("cursor") != want || q.Get("epoch") != "e1" {
			t.Errorf("request %d asked for %s", i, q.Encode())
		}
	}
}

// TestFollowSince keeps the time of the beginning until it knows an id.
func TestFollowSince(t *testing.T) {
	t.Parallel()
	f := newFakeDaemon(t, 50, sends(), sends("?", `{"type":"updated","id":40}`), sends(identity(41)))
	got := f.follow(client.Follow{Since: time.UnixMicro(5)}, 41)
	if got.err != nil || !slices.Equal(got.nexts, []uint64{0, 40}) {
		t.Errorf("%+v", got)
	}
	for i, want := range []string{"since=5", "epoch=e1&since=5", "cursor=40&epoch=e1"} {
		if q := f.queries[i].Encode(); q != want {
			t.Errorf("request %d asked for %s", i, q)
		}
	}
}

// TestFollowUntilHead ends at the head, whether or not the filter wants the newest events.
func TestFollowUntilHead(t *testing.T) {
	t.Parallel()
	past := uint64(7)
	for name, row := range map[string]struct {
		cursor *uint64
		sent   []string
		want   []uint64
	}{
		"the newest event":         {nil, []string{identity(5), identity(6)}, []uint64{5, 6}},
		"an event beyond":          {nil, []string{identity(5), identity(7)}, []uint64{5}},
		"a filter that wants less": {nil, []string{"?", `{"type":"updated","id":3}`, identity(4), "?", `{"type":"updated","id":7}`}, []uint64{4}},
		"nothing there":            {&past, []string{"?", `{"type":"updated","id":7}`}, nil},
	} {
		got := newFakeDaemon(t, 6, sends(row.sent...)).follow(client.Follow{UntilHead: true, Cursor: row.cursor}, 0)
		if got.err != nil || !slices.Equal(got.ids, row.want) || len(got.losses) > 0 {
			t.Errorf("%s: %+v, want %v", name, got, row.want)
		}
	}
}

// TestFollowEnds checks the errors that end a stream, and that they cannot drive a terminal.
func TestFollowEnds(t *testing.T) {
	t.Parallel()
	outdated := "{\"type\":\"error\",\"error\":\"OutdatedCursor\",\"message\":\"too\\u001b old\"}"
	for _, row := range []struct {
		visits []visit
		want   string
	}{
		{[]visit{sends(outdated)}, "ends the stream: OutdatedCursor: too· old"},
		{[]visit{sends(identity(5)), sends(outdated)}, "ends the stream: OutdatedCursor: too· old"},
		{[]visit{refuses(400)}, "answers Odd: as the·[2J test wants"},
		{[]visit{refuses(503)}, "answers Odd"}, // no connection was there to be lost
		{[]visit{sends(identity(5)), refuses(404)}, "answers Odd"},
		{[]visit{sends("\x1b[2J")}, "message ·[2J of "},
	} {
		got := newFakeDaemon(t, 4, row.visits...).follow(client.Follow{}, 0)
		if got.err == nil || !strings.Contains(got.err.Error(), row.want) || strings.Contains(got.err.Error(), "\x1b") {
			t.Errorf("ended with %q, want %s", got.err, row.want)
		}
	}
	f := newFakeDaemon(t, 4)
	f.Close()
	if got := f.follow(client.Follow{}, 0); got.err == nil || !strings.Contains(got.err.Error(), "start one with cistern run, or name it with --url") {
		t.Errorf("without a daemon: %v", got.err)
	}
	odd := errors.New("odd")
	c := client.New(newFakeDaemon(t, 4, sends(identity(5))).URL, "", "")
	if err := c.Follow(t.Context(), client.Follow{Event: func(*client.Event) error { return odd }}); !errors.Is(err, odd) {
		t.Errorf("the callback's error became %v", err)
	}
}
