package deliver_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"cistern/api/deliver"
	"cistern/api/deliver/delivertest"
	"cistern/api/durable"
	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/fxamacker/cbor/v2"
	"github.com/gorilla/websocket"
)

// tapWorld is a log that clients of tap consume.
type tapWorld struct{ *durableWorld }

func newTapWorld(t *testing.T, o deliver.Options, d durable.Options, events ...store.Event) *tapWorld {
	t.Helper()
	w := &tapWorld{newDurableWorldWith(t, o, d, events...)}
	if err := w.subs.Drop("a"); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *tapWorld) follow(t *testing.T) *websocket.Conn {
	t.Helper()
	return dial(t, w.srv, "/channel", nil)
}

// until waits until the status of the subscription holds.
func (w *tapWorld) until(t *testing.T, what string, holds func(durable.Status) bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		st, err := w.subs.Status(durable.Tap)
		if err == nil && holds(st) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: the status is %+v, %v", what, st, err)
		}
	}
}

func (w *tapWorld) drained(t *testing.T) {
	t.Helper()
	w.until(t, "drained", func(st durable.Status) bool { return st.Lag == 0 && st.Outstanding == 0 })
}

// breaksOff reads until the connection ends, which must not be by a close frame. It returns how many
// messages came.
func breaksOff(t *testing.T, ws *websocket.Conn) (n int) {
	t.Helper()
	for {
		_, _, err := ws.ReadMessage()
		if err == nil {
			n++
			continue
		}
		var closed *websocket.CloseError
		var timeout net.Error
		if errors.As(err, &closed) && closed.Code != websocket.CloseAbnormalClosure ||
			errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("the stream does not break off: %v", err)
		}
		return n
	}
}

func tapIdentity(account int) store.Event {
	return store.Event{Kind: store.KindIdentity, DID: storetest.DID(account), Handle: "a.test"}
}

func tapIdentities(n int) (events []store.Event) {
	for i := range n {
		events = append(events, tapIdentity(i))
	}
	return events
}

func tapRecord(t *testing.T, account int, record any) store.Event {
	t.Helper()
	body, err := cbor.Marshal(record)
	if err != nil {
		t.Fatal(err)
	}
	return store.Event{Kind: store.KindRecord, DID: storetest.DID(account), Rev: storetest.Rev(1), Action: store.Create,
		Collection: []byte("app.test.a"), Rkey: []byte("self"), CID: repo.HashCID(body), Record: body}
}

// A client gets the events that it takes, from the oldest on. The others are settled without being
// sent, also when none follows them. Acknowledgements come in any order, and again, and from former
// connections.
func TestTap(t *testing.T) {
	t.Parallel()
	refused := map[string]any{"n": int64(1) << 60}
	w := newTapWorld(t, deliver.Options{}, durable.Options{},
		tapIdentity(1), tapRecord(t, 1, map[string]any{"a": 1.5}), tapRecord(t, 1, map[string]any{"text": "x"}),
		tapRecord(t, 2, refused), store.Event{Kind: 99, DID: storetest.DID(2)},
		store.Event{Kind: store.KindAccount, DID: storetest.DID(2), Status: store.StatusNotFound}, tapIdentity(3), tapRecord(t, 3, refused))
	ws := w.follow(t)
	for _, want := range []string{
		`{"id":1,"type":"identity","identity":{"did":"` + storetest.DID(1) + `","handle":"a.test","is_active":true,"status":"active"}}`,
		`{"id":3,"type":"record","record":{"live":false,"did":"` + storetest.DID(1) + `","rev":"` + storetest.Rev(1) +
			`","collection":"app.test.a","rkey":"self","action":"create","record":{"text":"x"},"cid":"`,
		`{"id":6,"type":"identity","identity":{"did":"` + storetest.DID(2) + `","handle":"handle.invalid","is_active":false,"status":"deactivated"}}`,
		`{"id":7,"type":"identity"`,
	} {
		if kind, text, err := ws.ReadMessage(); !strings.HasPrefix(string(text), want) || kind != websocket.TextMessage || err != nil {
			t.Fatalf("got %s, %v, want %s", text, err, want)
		}
	}
	w.until(t, "left out", func(st durable.Status) bool { return st.Outstanding == 4 && st.Lag == 0 })
	say(t, ws, `{"type":"hello"}`, `{"type":"ack","id":7,"more":[]}`, `{"type":"ack","id":7}`, `{"type":"ack","id":4}`, `{"type":"ack","id":9999}`, `{}`)
	w.until(t, "one is acknowledged", func(st durable.Status) bool { return st.Outstanding == 3 })
	_ = ws.Close()
	w.until(t, "closed", func(st durable.Status) bool { return len(st.Connections) == 0 })
	ws = w.follow(t)
	say(t, ws, `{"type":"ack","id":6}`, `{"type":"ack","id":3}`, `{"type":"ack","id":1}`)
	w.drained(t)
	w.log.Add(tapIdentity(4))
	for id := uint64(0); id != 9; {
		id = delivertest.Next(t, ws).ID // what was sent again before the acknowledgements arrived
	}
	acknowledge(t, ws, 9)
	w.drained(t)
}

func say(t *testing.T, ws *websocket.Conn, messages ...string) {
	t.Helper()
	for _, m := range messages {
		if err := ws.WriteMessage(websocket.TextMessage, []byte(m)); err != nil {
			t.Fatal(err)
		}
	}
}

// A client of tap that gets a close frame never connects again: whatever ends a stream, the server
// sends no close frame, unless the client sent one.
func TestTapBreaksOff(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(t *testing.T, w *tapWorld, ws *websocket.Conn){
		"no JSON":  func(t *testing.T, _ *tapWorld, ws *websocket.Conn) { say(t, ws, "ack 1") },
		"no id":    func(t *testing.T, _ *tapWorld, ws *websocket.Conn) { say(t, ws, `{"type":"ack","id":"1"}`) },
		"too long": func(t *testing.T, _ *tapWorld, ws *websocket.Conn) { say(t, ws, strings.Repeat(" ", 5000)+"{}") },
		"half closed": func(t *testing.T, _ *tapWorld, ws *websocket.Conn) {
			if err := ws.NetConn().(*net.TCPConn).CloseWrite(); err != nil {
				t.Error(err)
			}
		},
		"dropped": func(t *testing.T, w *tapWorld, _ *websocket.Conn) {
			if err := w.subs.Drop(durable.Tap); err != nil {
				t.Error(err)
			}
		},
		"damaged": func(_ *testing.T, w *tapWorld, ws *websocket.Conn) {
			w.log.Break(errors.New("the log cannot be read"))
			w.log.Add(tapIdentity(1))
		},
		"slow": func(t *testing.T, w *tapWorld, ws *websocket.Conn) {
			for range 16 { // and it does not read
				w.log.Add(tapRecord(t, 1, map[string]any{"text": strings.Repeat("x", 900_000)}))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newTapWorld(t, deliver.Options{WriteTimeout: 500 * time.Millisecond}, durable.Options{}, tapIdentity(1))
			ws := w.follow(t)
			delivertest.Next(t, ws)
			end(t, w, ws)
			if name == "slow" {
				w.until(t, "cut off", func(st durable.Status) bool { return len(st.Connections) == 0 })
			}
			if n := breaksOff(t, ws); name == "slow" && n == 16 {
				t.Error("the client got everything: it was not slow")
			}
		})
	}
	w := newTapWorld(t, deliver.Options{}, durable.Options{})
	ws := w.follow(t)
	if err := ws.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")); err != nil {
		t.Fatal(err)
	}
	delivertest.Ends(t, ws, websocket.CloseNormalClosure)
}

// A client for which there is no place is not answered, since it would never try again. A request
// for something else than a WebSocket is.
func TestTapTurnedAway(t *testing.T) {
	t.Parallel()
	w := newTapWorld(t, deliver.Options{SubscribersMax: 1}, durable.Options{})
	w.follow(t)
	ws, res, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(w.srv.URL, "http")+"/channel", nil)
	if err == nil {
		_ = ws.Close()
	}
	if res != nil || !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a second client is answered: %v, %v", res, err)
	}
	res, err = http.Get(w.srv.URL + "/channel")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("status %d", res.StatusCode)
	}
}

// Clients share the events by account, and the log says so. What the operator has set of the
// subscription holds for them.
func TestTapShared(t *testing.T) {
	t.Parallel()
	var log syncBuffer
	w := newTapWorld(t, deliver.Options{}, durable.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}, tapIdentities(200)...)
	seen := make(chan uint64)
	for range 2 {
		ws := w.follow(t)
		t.Cleanup(func() { _ = ws.Close() })
		go func() {
			for {
				_, text, err := ws.ReadMessage()
				if err != nil {
					return
				}
				m, _ := delivertest.Parse(text)
				seen <- m.ID
				_ = ws.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `{"type":"ack","id":%d}`, m.ID))
			}
		}()
	}
	got := map[uint64]bool{}
	for len(got) < 200 {
		got[<-seen] = true
	}
	w.drained(t)
	if !strings.Contains(log.String(), "shared by several connections") {
		t.Errorf("the log does not say that they share: %s", log.String())
	}
}

// Events that the log has lost are given up: tap has no message for a gap.
func TestTapGap(t *testing.T) {
	t.Parallel()
	var log syncBuffer
	w := newTapWorld(t, deliver.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}, durable.Options{}, tapIdentities(10)...)
	ws := w.follow(t)
	delivertest.WantIDs(t, ws, 1, 10)
	_ = ws.Close()
	w.until(t, "closed", func(st durable.Status) bool { return len(st.Connections) == 0 })
	w.log.Add(tapIdentities(10)...)
	w.log.Prune(15)
	ws = w.follow(t)
	delivertest.WantIDs(t, ws, 15, 20)
	acknowledge(t, ws, 15, 16, 17, 18, 19, 20)
	w.drained(t)
	if text := log.String(); !strings.Contains(text, "from=1 to=14") {
		t.Errorf("the log does not say what was lost: %s", text)
	}
}

// A client that acknowledges slowly is not sent more than it reads ahead: it would read pongs too
// late. One that acknowledges quickly is sent more and more.
func TestTapPace(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	p, next, sent := deliver.NewTapPace(), uint64(0), []uint64{}
	send := func() {
		for range p.Room(now) {
			next++
			p.Send(now, next)
			sent = append(sent, next)
		}
	}
	// perSecond acknowledges for some seconds at a rate, and returns how many are sent then.
	perSecond := func(rate, seconds int) int {
		for range seconds * 20 {
			now = now.Add(time.Second / 20)
			for range min(rate/20, len(sent)) {
				if !p.Acknowledged(sent[0]) {
					t.Fatalf("%d is not known", sent[0])
				}
				sent = sent[1:]
			}
			send()
		}
		return len(sent)
	}
	if send(); len(sent) != 16 {
		t.Errorf("%d are sent at first", len(sent))
	}
	now = now.Add(time.Millisecond)
	for range sent {
		p.Acknowledged(sent[0])
		sent = sent[1:]
	}
	if send(); len(sent) != 32 {
		t.Errorf("%d are sent after all were acknowledged at once", len(sent))
	}
	if n := perSecond(10_000, 10); n < 5_000 || n > 20_000 {
		t.Errorf("%d are sent to a fast client", n)
	}
	for _, rate := range []int{1000, 100, 20} { // it has what was sent in less than tapForget
		if n := perSecond(rate, 50); n != 2*rate {
			t.Errorf("%d are sent to a client of rate %d", n, rate)
		}
	}
	if sent[0] > 1 && p.Acknowledged(sent[0]-1) {
		t.Error("an acknowledgement counts twice")
	}
	now = now.Add(2 * time.Minute)
	if n := p.Room(now); n != 40 {
		t.Errorf("there is room for %d after all that was sent is given up", n)
	}
}

// A client is sent 16 events, and more as it acknowledges.
func TestTapSendsFew(t *testing.T) {
	t.Parallel()
	w := newTapWorld(t, deliver.Options{}, durable.Options{}, tapIdentities(100)...)
	ws := w.follow(t)
	delivertest.WantIDs(t, ws, 1, 16)
	if err := ws.WriteControl(websocket.PingMessage, []byte("ping"), time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	pong := false
	ws.SetPongHandler(func(string) error { pong = true; acknowledge(t, ws, 3); return nil })
	if m := delivertest.Next(t, ws); m.ID != 17 || !pong {
		t.Errorf("event %d before the pong: %t", m.ID, pong)
	}
	next := uint64(18)
	for id := uint64(1); id <= 100; id++ {
		if acknowledge(t, ws, id); id != 3 && next <= 100 {
			delivertest.WantIDs(t, ws, next, next)
			next++
		}
	}
	w.drained(t)
}

// Clients that come and go get every event until it is acknowledged, in the order of each account,
// and no message that they do not take, whatever the log has.
func TestTapClients(t *testing.T) {
	t.Parallel()
	for seed := range storetest.Seeds(10) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			testTapClients(t, rand.New(rand.NewPCG(seed, 7)))
		})
	}
}

func testTapClients(t *testing.T, r *rand.Rand) {
	t.Helper()
	w := newTapWorld(t, deliver.Options{}, durable.Options{WindowEvents: 5 + r.IntN(100)})
	left := map[uint64]bool{} // events that clients do not take
	add := func(n int) {
		for range n {
			var ev store.Event
			switch account := r.IntN(8); r.IntN(4) {
			case 0:
				ev = tapRecord(t, account, map[string]any{"a": []any{1.5, int64(1) << 60, map[string]any{"$type": ""}}[r.IntN(3)]})
				left[w.log.Head()+1] = true
			case 1:
				ev = tapIdentity(account)
			default:
				ev = tapRecord(t, account, map[string]any{"a": r.IntN(1000)})
			}
			w.log.Add(ev)
		}
	}
	add(100)
	acked := map[uint64]bool{}
	for range 6 {
		ws := w.follow(t)
		sent, kept := map[string]uint64{}, 0
		for range r.IntN(60) {
			if kept == 4 || len(acked)+len(left)+kept == int(w.log.Head()) {
				break // it may be sent nothing more
			}
			m := delivertest.Next(t, ws)
			did := ""
			if m.Identity != nil {
				did = m.Identity.DID
			} else if m.Record != nil {
				did = m.Record.DID
			}
			for id := sent[did] + 1; id < m.ID; id++ {
				if w.log.DID(id) == did && !acked[id] && !left[id] {
					t.Fatalf("event %d of %s comes before %d", m.ID, did, id)
				}
			}
			if left[m.ID] || did == "" {
				t.Fatalf("the client got %+v", m)
			}
			sent[did] = m.ID
			if r.IntN(4) > 0 {
				acknowledge(t, ws, m.ID)
				acked[m.ID] = true
			} else {
				kept++
			}
			if r.IntN(8) == 0 {
				add(r.IntN(10))
			}
		}
		_ = ws.Close()
		w.until(t, "closed", func(st durable.Status) bool { return len(st.Connections) == 0 })
	}
	ws := w.follow(t)
	for len(acked)+len(left) < int(w.log.Head()) {
		m := delivertest.Next(t, ws)
		acknowledge(t, ws, m.ID)
		acked[m.ID] = true
	}
	w.drained(t)
}
