package deliver_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"cistern/api/deliver"
	"cistern/api/deliver/delivertest"
	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"
)

// mixed makes n events of every kind, of a few accounts and collections.
func mixed(rnd *rand.Rand, n int) []store.Event {
	events := make([]store.Event, n)
	for i := range events {
		ev := store.Event{DID: storetest.DID(rnd.IntN(5) + 1), Kind: store.Kind(rnd.IntN(5))} // 0: hidden
		switch ev.Kind {
		case store.KindRecord:
			ev.Collection = []byte([]string{"app.test.a", "app.test.b", "app.test.b.c", "com.test.a"}[rnd.IntN(4)])
			ev.Rkey, ev.Rev, ev.Live = fmt.Appendf(nil, "r%d", i), "3k", rnd.IntN(2) == 0
			if ev.Action = store.Action(rnd.IntN(3) + 1); ev.Action != store.Delete {
				ev.Record = storetest.Text(strings.Repeat("x", rnd.IntN(300)))
				ev.CID = repo.HashCID(ev.Record)
			}
		case store.KindIdentity:
			ev.Handle = "a.test"
		case store.KindRepo:
			ev.Condition, ev.Reason = store.ConditionFailing, store.Transport
		}
		events[i] = ev
	}
	return events
}

var kindWords = []string{"", "record", "account", "identity", "repo"}

// wants decides by the words of the parameters, apart from the code under test.
func wants(ev *store.Event, collections, dids, kinds, actions, live string) bool {
	in := func(list, word string) bool { return list == "" || slices.Contains(strings.Split(list, ","), word) }
	if kinds == "" {
		kinds = "record,account,identity" // repo events are for consumers that ask for them
	}
	if !in(dids, ev.DID) || !in(kinds, kindWords[ev.Kind]) {
		return false
	}
	if ev.Kind != store.KindRecord {
		return true
	}
	collection := string(ev.Collection)
	some := collections == ""
	for _, p := range strings.Split(collections, ",") {
		prefix, wild := strings.CutSuffix(p, "*")
		some = some || collection == p || wild && strings.HasPrefix(collection, prefix)
	}
	return some && in(actions, ev.Action.String()) && (live == "" || live == fmt.Sprint(ev.Live))
}

// Streams with random filters, of which many share pages, get exactly what they want.
func TestStreamFilters(t *testing.T) {
	t.Parallel()
	seed := uint64(rand.Int64())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	events := mixed(rnd, 3000)
	log := delivertest.NewLog(events...)
	srv := serveLog(t, log, deliver.Options{PageBytes: 3000})
	pick := func(words ...string) string { return words[rnd.IntN(len(words))] }
	for i := range 30 {
		collections := pick("", "app.test.a", "app.test.*", "app.test.b.c,com.test.a", "none.at.all")
		dids := pick("", storetest.DID(1), storetest.DID(2)+","+storetest.DID(3), storetest.DID(9))
		kinds, actions, live := pick("", "record", "record,account", "identity", "repo", "record,repo", "record,account,identity,repo"), pick("", "create", "update,delete"), pick("", "true", "false")
		if i == 0 { // without a filter
			collections, dids, kinds, actions, live = "", "", "", "", ""
		}
		from := rnd.IntN(len(events)) + 1
		query := fmt.Sprintf("?cursor=%d&collections=%s&dids=%s&kinds=%s&actions=%s&live=%s", from, collections, dids, kinds, actions, live)
		ws := delivertest.Follow(t, srv.URL, query)
		for i := from; i <= len(events); i++ {
			if ev := &events[i-1]; ev.Kind == 0 || !wants(ev, collections, dids, kinds, actions, live) {
				continue
			}
			m := delivertest.Next(t, ws)
			if m.ID != uint64(i) || m.Type != kindWords[events[i-1].Kind] {
				t.Fatalf("%s: got %d (%s), want %d", query, m.ID, m.Type, i)
			}
		}
		_ = ws.Close()
	}
}

// An update holds from the id that its answer names, and from no earlier one.
func TestStreamUpdate(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(7, 7))
	events := mixed(rnd, 20_000)
	for i := range events {
		events[i].Kind = store.KindIdentity // none hidden
	}
	log := delivertest.NewLog(events...)
	ws := delivertest.Follow(t, serveLog(t, log, deliver.Options{PageBytes: 2000}).URL, "?cursor=1&dids="+storetest.DID(1))
	was := storetest.DID(1)
	for i := range 3 {
		add := func(did string) {
			ev := store.Event{Kind: store.KindIdentity, DID: did}
			log.Add(ev)
			events = append(events, ev)
		}
		add(was) // the stream may have reached the head
		delivertest.Next(t, ws)
		did := storetest.DID(i%2 + 2)
		if err := ws.WriteJSON(map[string]any{"type": "update", "dids": []string{did}}); err != nil {
			t.Fatal(err)
		}
		last := uint64(0)
		for {
			m := delivertest.Next(t, ws)
			if m.Type == "updated" {
				if m.ID <= last {
					t.Errorf("the update holds from %d, and %d came before", m.ID, last)
				}
				last = m.ID
				break
			}
			last = m.ID
		}
		add(did)
		was = did
		for id := last; id <= log.Head(); id++ {
			if events[id-1].DID != did {
				continue
			}
			if m := delivertest.Next(t, ws); m.ID != id {
				t.Fatalf("after the update: got %d, want %d of %s", m.ID, id, did)
			}
			break
		}
	}
	if err := ws.WriteJSON(map[string]any{"type": "update", "kinds": []string{"nope"}}); err != nil {
		t.Fatal(err)
	}
	for {
		m := delivertest.Next(t, ws)
		if m.Type == "error" {
			if m.Error != "InvalidRequest" || !strings.Contains(m.Message, "nope") {
				t.Errorf("%+v", m)
			}
			break
		}
	}
	delivertest.Ends(t, ws, websocket.ClosePolicyViolation)
}

// TestStreamUpdateErrors: the error about a long message is short.
func TestStreamUpdateErrors(t *testing.T) {
	t.Parallel()
	srv := serveLog(t, delivertest.NewLog(), deliver.Options{})
	many := strings.Repeat(`"",`, 100_000) + `""`
	for _, message := range []string{
		`{"type":"update","dids":[` + many + `]}`,
		`{"type":"update","collections":[` + many + `]}`,
		`{"type":"update","kinds":[` + many + `]}`,
		`{"type":"update","` + strings.Repeat("\x7f", 400_000) + `":1}`,
	} {
		ws := delivertest.Follow(t, srv.URL, "")
		if err := ws.WriteMessage(websocket.TextMessage, []byte(message)); err != nil {
			t.Fatal(err)
		}
		m := delivertest.Next(t, ws)
		if m.Error != "InvalidRequest" || len(m.Message) > 10_000 {
			t.Errorf("%.40s: error %s of %d bytes", message, m.Error, len(m.Message))
		}
		delivertest.Ends(t, ws, websocket.ClosePolicyViolation)
	}
}

// TestMessagesWaitForTheirTurn: while one message of a client is being understood, its next one
// waits, and one of another client does not.
func TestMessagesWaitForTheirTurn(t *testing.T) {
	t.Parallel()
	handler, release, uses := deliver.StreamHandlerBusy(delivertest.NewLog(), deliver.Options{}, "127.0.0.1:1")
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	ws := delivertest.Follow(t, srv.URL, "")
	d := websocket.Dialer{NetDialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(two)}}).DialContext}
	other, _, err := d.DialContext(t.Context(), "ws"+strings.TrimPrefix(srv.URL, "http")+"/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })
	for _, c := range []*websocket.Conn{ws, other} {
		if err := c.WriteMessage(websocket.TextMessage, []byte(`{"type":"update"}`)); err != nil {
			t.Fatal(err)
		}
	}
	if m := delivertest.Next(t, other); m.Type != "updated" {
		t.Errorf("%+v", m)
	}
	answered := make(chan struct{})
	var g errgroup.Group
	g.Go(func() error {
		defer close(answered)
		_, _, err := ws.ReadMessage()
		return err
	})
	lasts(t, func() bool { return uses() == 2 }, answered)
	release()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// TestFiltersHaveABudget: a long filter is refused while those of other streams fill the budget, also
// in an update. It has room again when a stream has ended or has a shorter one.
func TestFiltersHaveABudget(t *testing.T) {
	t.Parallel()
	h, uses := deliver.StreamHandlerFilters(delivertest.NewLog(delivertest.Posts(1)...), deliver.Options{}, 80<<10) // 60 KiB for a client
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	var dids []string
	for i := range 500 {
		dids = append(dids, storetest.DID(i))
	}
	long := strings.Join(dids, ",")
	update, err := json.Marshal(map[string]any{"type": "update", "dids": dids})
	if err != nil {
		t.Fatal(err)
	}
	send := func(ws *websocket.Conn, text []byte) {
		t.Helper()
		if err := ws.WriteMessage(websocket.TextMessage, text); err != nil {
			t.Fatal(err)
		}
	}
	wait := func(n int) {
		t.Helper()
		for i := 0; uses() != n; i++ {
			if i == 1000 {
				t.Fatalf("%d filters hold room, want %d", uses(), n)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	first := delivertest.Follow(t, srv.URL, "?dids="+long)
	refused(t, srv, "/stream?dids="+long, nil, "RateLimitExceeded", "no room for a filter of")
	short := delivertest.Follow(t, srv.URL, "?dids="+dids[0])
	send(short, update)
	if m := delivertest.Next(t, short); m.Error != "InvalidRequest" || !strings.Contains(m.Message, "no room for a filter of") {
		t.Errorf("%+v", m)
	}
	send(first, []byte(`{"type":"update"}`))
	if m := delivertest.Next(t, first); m.Type != "updated" {
		t.Errorf("%+v", m)
	}
	wait(0)
	send(first, update)
	if m := delivertest.Next(t, first); m.Type != "updated" {
		t.Errorf("%+v", m)
	}
	wait(1)
	_ = first.Close()
	wait(0)
}

// include=cbor brings the bytes that the CID is the hash of, also of a record without a JSON form.
func TestStreamCBOR(t *testing.T) {
	t.Parallel()
	events := delivertest.Posts(2)
	events[1].Record = []byte{0xa1, 0x61, 'x', 0xfb, 0, 0, 0, 0, 0, 0, 0, 0} // {"x": 0.0}
	events[1].CID = repo.HashCID(events[1].Record)
	srv := serveLog(t, delivertest.NewLog(events...), deliver.Options{})
	for _, query := range []string{"?cursor=1&include=cbor", "?cursor=1"} {
		ws := delivertest.Follow(t, srv.URL, query)
		for i := range events {
			_, text, err := ws.ReadMessage()
			var m struct {
				Record struct{ CID, CBOR, Unrepresentable string }
			}
			if err := json.Unmarshal(text, &m); err != nil {
				t.Fatal(err)
			}
			body, berr := base64.StdEncoding.DecodeString(m.Record.CBOR)
			if err != nil || berr != nil || (m.Record.Unrepresentable != "") != (i == 1) {
				t.Errorf("%s: %s", query, text)
			}
			if with := strings.Contains(query, "include"); with != (len(body) > 0) || with && repo.HashCID(body).String() != m.Record.CID {
				t.Errorf("%s: the bytes do not hash to the CID: %s", query, text)
			}
		}
	}
}

// A message of a consumer is an update, or refused with a reason.
func FuzzUpdate(f *testing.F) {
	for _, s := range []string{"", "{}", `{"type":"update"}`, `{"type":"update","dids":["did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"],"live":true}`,
		`{"type":"update","collections":["app.*",""],"kinds":null}`, `{"type":"update","other":1}`, `[{"type":"update"}]`, `{"type":"update"} x`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		events, err := deliver.ParseUpdate(strings.NewReader(s))
		if (events == nil) == (err == nil) {
			t.Errorf("%q: %v, %v", s, events, err)
		}
	})
}
