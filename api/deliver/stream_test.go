package deliver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cistern/api/deliver"
	"cistern/api/deliver/delivertest"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"
)

func serveLog(t testing.TB, log deliver.Log, o deliver.Options) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(deliver.StreamHandler(log, o))
	t.Cleanup(srv.Close)
	return srv
}

func TestStreamReplayThenTail(t *testing.T) {
	t.Parallel()
	log := delivertest.NewLog(delivertest.Identities(1000)...)
	srv := serveLog(t, log, deliver.Options{PageBytes: 1000})
	all, some, live, ahead := delivertest.Follow(t, srv.URL, "?cursor=0"), delivertest.Follow(t, srv.URL, "?cursor=700&epoch=epoch1"), delivertest.Follow(t, srv.URL, ""), delivertest.Follow(t, srv.URL, "?cursor=1001")
	delivertest.WantIDs(t, all, 1, 1000)
	delivertest.WantIDs(t, some, 700, 1000)
	for i := range 50 {
		log.Add(delivertest.Identity(i))
		for _, ws := range []*websocket.Conn{all, some, ahead} {
			delivertest.WantIDs(t, ws, uint64(1001+i), uint64(1001+i))
		}
	}
	delivertest.WantIDs(t, live, 1001, 1050)
}

// Hidden events leave gaps, and a page of nothing but hidden events is no end.
func TestStreamSkipsHidden(t *testing.T) {
	t.Parallel()
	events := delivertest.Identities(500)
	for i := range events {
		if i%100 != 99 {
			events[i].Kind = 0
		}
	}
	ws := delivertest.Follow(t, serveLog(t, delivertest.NewLog(events...), deliver.Options{PageEvents: 7}).URL, "?cursor=0")
	for id := uint64(100); id <= 500; id += 100 {
		delivertest.WantIDs(t, ws, id, id)
	}
}

func TestStreamCursors(t *testing.T) {
	t.Parallel()
	log := delivertest.NewLog(delivertest.Identities(10)...)
	log.Tail = 5
	srv := serveLog(t, log, deliver.Options{})
	for _, c := range []struct{ query, name string }{
		{"?cursor=12", "FutureCursor"}, // head + 2
		{"?cursor=18446744073709551615", "FutureCursor"},
		{"?cursor=4", "OutdatedCursor"},             // below the tail
		{"?cursor=7&epoch=other", "OutdatedCursor"}, // ids of another log
		{"?cursor=0&epoch=other", "OutdatedCursor"}, // likewise: nothing of what the client has is worth anything
		{"?epoch=other%22%0a", "OutdatedCursor"},    // and is quoted
	} {
		ws := delivertest.Follow(t, srv.URL, c.query)
		m := delivertest.Next(t, ws)
		if m.Type != "error" || m.Error != c.name || m.Message == "" {
			t.Errorf("%s: %+v", c.query, m)
		}
		if foreign := strings.Contains(c.query, "epoch"); strings.Contains(m.Message, "of epoch") != foreign || strings.Contains(m.Message, "below") == foreign && c.name == "OutdatedCursor" {
			t.Errorf("%s: %s", c.query, m.Message)
		}
		delivertest.Ends(t, ws, websocket.ClosePolicyViolation)
	}
	delivertest.WantIDs(t, delivertest.Follow(t, srv.URL, "?cursor=0"), 5, 10)
	delivertest.WantIDs(t, delivertest.Follow(t, srv.URL, "?cursor=5"), 5, 10)
}

// TestStreamSince begins at a time, in each way to write it.
func TestStreamSince(t *testing.T) {
	t.Parallel()
	events := delivertest.Identities(10)
	for i := range events {
		events[i].Time = time.Date(2026, 1, 2, 3, 4, i, 0, time.UTC).UnixMicro()
	}
	log := delivertest.NewLog(events...)
	log.Tail = 3
	srv := serveLog(t, log, deliver.Options{})
	for query, from := range map[string]uint64{
		"?since=" + strconv.FormatInt(events[6].Time, 10):   7,
		"?since=" + strconv.FormatInt(events[6].Time+1, 10): 8,
		"?since=2026-01-02T03:04:06Z":                       7,
		"?since=2026-01-02T05:04:05.5%2B02:00":              7,
		"?since=2026-01-02T05:04:05.5+02:00":                7, // the + is not escaped
		"?since=-5":                                         3, // the oldest event kept
		"?since=2026-01-02T03:04:06Z&dids=did:plc:8":        9,
		"?since=2026-01-02T03:04:06Z&epoch=epoch1":          7,
	} {
		ws := delivertest.Follow(t, srv.URL, query)
		if m := delivertest.Next(t, ws); m.ID != from {
			t.Errorf("%s begins at %+v, want %d", query, m, from)
		}
	}
	ahead := delivertest.Follow(t, srv.URL, "?since=2126-01-02T03:04:06Z")
	log.Add(delivertest.Identity(11))
	delivertest.WantIDs(t, ahead, 11, 11)
}

func TestOptions(t *testing.T) {
	t.Parallel()
	_, err := deliver.New(deliver.Options{SubscribersMax: -1, PageBytes: -1})
	for _, says := range []string{"log", "subscribers", "page bytes"} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s is not named: %v", says, err)
		}
	}
}

func TestStreamRefusals(t *testing.T) {
	t.Parallel()
	srv := serveLog(t, delivertest.NewLog(), deliver.Options{SubscribersMax: 1})
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
		{"?cursor=1&cursor=2", true, 400, "InvalidRequest"},
		{"?since=yesterday", true, 400, "InvalidRequest"},
		{"?since=", true, 400, "InvalidRequest"},
		{"?since=1&since=2", true, 400, "InvalidRequest"},
		{"?since=1&cursor=2", true, 400, "InvalidRequest"},
		{"?collections=nope", true, 400, "InvalidRequest"},
		{"?dids=alice", true, 400, "InvalidRequest"},
		{"?kinds=commit", true, 400, "InvalidRequest"},
		{"?actions=put", true, 400, "InvalidRequest"},
		{"?live=maybe", true, 400, "InvalidRequest"},
		{"?include=json", true, 400, "InvalidRequest"},
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
	first := delivertest.Follow(t, srv.URL, "")
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
	log := delivertest.NewLog()
	srv := serveLog(t, log, deliver.Options{})

	ws := delivertest.Follow(t, srv.URL, "") // a ping is answered
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

	for size, code := range map[int]int{1: 1008, 100_000: 1008, 1_000_000: 1009} { // no update of the filter, and too long for one
		ws = delivertest.Follow(t, srv.URL, "")
		if err := ws.WriteMessage(websocket.TextMessage, make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		if m := delivertest.Next(t, ws); m.Error != "InvalidRequest" || m.Message == "" {
			t.Errorf("message of %d bytes: %+v", size, m)
		}
		delivertest.Ends(t, ws, code)
	}
}

func TestStreamReadError(t *testing.T) {
	t.Parallel()
	log := delivertest.NewLog(delivertest.Identities(3)...)
	log.Fail = fmt.Errorf("disk: %w", store.ErrCorrupt)
	ws := delivertest.Follow(t, serveLog(t, log, deliver.Options{}).URL, "?cursor=1")
	if m := delivertest.Next(t, ws); m.Error != "InternalError" || strings.Contains(m.Message, "disk") {
		t.Errorf("%+v", m)
	}
	delivertest.Ends(t, ws, websocket.CloseInternalServerErr)
}

// What is written between the look at the log and the wait for a change is not waited for.
func TestStreamMissesNoChange(t *testing.T) {
	t.Parallel()
	log := delivertest.NewLog(delivertest.Identities(3)...)
	log.Looked = func() { log.Add(delivertest.Identity(4)) }
	srv := serveLog(t, log, deliver.Options{})
	delivertest.WantIDs(t, delivertest.Follow(t, srv.URL, "?cursor=4"), 4, 4)
}

// A subscriber at the head is woken by each event: the stream looks for events at no other time.
func TestStreamWakes(t *testing.T) {
	storetest.WithoutRace(t) // which makes it too slow for its deadlines
	t.Parallel()
	log := delivertest.NewLog(delivertest.Identities(1)...)
	ws := delivertest.Follow(t, serveLog(t, log, deliver.Options{}).URL, "?cursor=2")
	for i := range 300 {
		log.Add(delivertest.Identity(i))
		if m := delivertest.Next(t, ws); m.ID != uint64(i+2) {
			t.Fatalf("got event %d, want %d", m.ID, i+2)
		}
	}
}

// A consumer that stops reading for too long gets an error frame, after whole frames.
func TestStreamSlowConsumer(t *testing.T) {
	t.Parallel()
	events := delivertest.Posts(40_000) // 18 MB: more than the kernel buffers
	srv := serveLog(t, delivertest.NewLog(events...), deliver.Options{WriteTimeout: 300 * time.Millisecond})
	ws := delivertest.Follow(t, srv.URL, "?cursor=1")
	delivertest.WantIDs(t, ws, 1, 1)
	<-time.After(time.Second)
	for id := uint64(2); ; id++ {
		m := delivertest.Next(t, ws)
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
	delivertest.Ends(t, ws, websocket.ClosePolicyViolation)
}

// Long pages that a consumer does not read cost only so much memory: other consumers wait for theirs, and get them all.
func TestStreamHoldsLongPages(t *testing.T) {
	t.Parallel()
	const n = 20
	events := delivertest.Posts(n)
	for i := range events {
		events[i].Record = delivertest.BlownUp(70_000) // 980 KB of JSON, 20 MB in all: more than the kernel buffers
	}
	handler, uses := deliver.StreamHandlerHolding(delivertest.NewLog(events...), deliver.Options{WriteTimeout: time.Minute, PageBytes: 1000}, 1<<20)
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	slow := delivertest.Follow(t, srv.URL, "?cursor=1")
	lasts(t, func() bool { return uses() == 1 }, nil) // its page waits for the consumer
	other, done := delivertest.Follow(t, srv.URL, "?cursor=2"), make(chan struct{})
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
	log := delivertest.NewLog(delivertest.Posts(2000)...)
	pager := deliver.NewPager(log, deliver.Options{})
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
	if pages := len(want[0])/(128<<10) + 1; log.Reads > 2*pages {
		t.Errorf("%d reads for %d pages and %d readers", log.Reads, pages, len(want))
	}
}

// TestSharedPageAges: after a second a page is read anew, so that what was hidden meanwhile is sent
// to no further subscriber (invariant 2).
func TestSharedPageAges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := delivertest.NewLog(delivertest.Posts(10)...)
		pager := deliver.NewPager(log, deliver.Options{})
		for i, wait := range []time.Duration{0, 999 * time.Millisecond, time.Millisecond} {
			time.Sleep(wait)
			if _, _, err := pager.Read(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			if want := []int{1, 1, 2}[i]; log.Reads != want {
				t.Errorf("the log was read %d times, not %d, after a read and %s more", log.Reads, want, wait)
			}
		}
	})
}

// A subscriber that waits for a page does not fail with the one that encodes it.
func TestPageOutlivesItsReader(t *testing.T) {
	t.Parallel()
	log := delivertest.NewLog(delivertest.Identities(10)...)
	pager := deliver.NewPager(log, deliver.Options{})
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := pager.Read(gone, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("read with an ended context: %v", err)
	}
	frames, next, err := pager.Read(t.Context(), 1)
	if err != nil || next != 11 || len(delivertest.SplitFrames(t, frames)) != 10 {
		t.Errorf("next %d, %v", next, err)
	}
}

// stopped is a log whose first page ends before its first event, once it may.
type stopped struct {
	*delivertest.Log
	reading, answer chan struct{}
	once            sync.Once
}

func (l *stopped) ReadLog(ctx context.Context, cursor uint64, most int, fn func(*store.Event) error) (next uint64, err error) {
	first := false
	l.once.Do(func() { first = true })
	if !first {
		return l.Log.ReadLog(ctx, cursor, most, fn)
	}
	close(l.reading)
	<-l.answer
	return cursor, nil
}

// TestEmptyPageIsNotShared: that readers could not pass an event is not told to a subscriber that
// came when they could: it would wait for the next change.
func TestEmptyPageIsNotShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log := &stopped{Log: delivertest.NewLog(delivertest.Identities(3)...),
			reading: make(chan struct{}), answer: make(chan struct{})}
		pager := deliver.NewPager(log, deliver.Options{})
		want := func(id uint64) func() error {
			return func() error {
				if _, next, err := pager.Read(t.Context(), 1); err != nil || next != id {
					return fmt.Errorf("next %d, %v, want %d", next, err, id)
				}
				return nil
			}
		}
		var g errgroup.Group
		g.Go(want(1))
		<-log.reading
		for range 3 {
			g.Go(want(4))
		}
		synctest.Wait()
		close(log.answer)
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		if log.Reads != 1 {
			t.Errorf("the log was read %d times more", log.Reads)
		}
	})
}

// distant is a log whose pages far from the head take until stop is closed.
type distant struct {
	*delivertest.Log
	stop    chan struct{}
	reading atomic.Int32
}

func (l *distant) ReadLog(ctx context.Context, cursor uint64, most int, fn func(*store.Event) error) (next uint64, err error) {
	if most > 0 && cursor < 500 {
		l.reading.Add(1)
		<-l.stop
	}
	return l.Log.ReadLog(ctx, cursor, most, fn)
}

// TestReplaysLeaveTheHead: however many streams replay the log, those at the head do not wait.
func TestReplaysLeaveTheHead(t *testing.T) {
	storetest.WithoutRace(t) // which makes it too slow for its deadlines
	t.Parallel()
	log := &distant{Log: delivertest.NewLog(delivertest.Posts(1000)...), stop: make(chan struct{})}
	srv := serveLog(t, log, deliver.Options{})
	tail := delivertest.Follow(t, srv.URL, "?cursor=950")
	delivertest.WantIDs(t, tail, 950, 1000)
	var replays []*websocket.Conn
	for i := range 40 {
		replays = append(replays, delivertest.Follow(t, srv.URL, fmt.Sprintf("?cursor=%d", i+1)))
	}
	lasts(t, func() bool { return log.reading.Load() == 16 }, nil)
	log.Add(delivertest.Posts(99)...) // a page that is long enough to wait for its encoding
	delivertest.WantIDs(t, tail, 1001, 1099)
	close(log.stop)
	for i, ws := range replays {
		delivertest.WantIDs(t, ws, uint64(i+1), 1099)
	}
}
