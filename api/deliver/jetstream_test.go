package deliver_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"cistern/api/deliver"
	"cistern/api/deliver/delivertest"
	"cistern/api/wire"
	"cistern/filter"
	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/fxamacker/cbor/v2"
	"github.com/gorilla/websocket"
)

const subscribe1, subscribe2 = "/subscribe", deliver.Subscribe2

// linked is a record with a string that needs escapes, a link and bytes.
func linked(t testing.TB) []byte {
	t.Helper()
	cid := repo.HashCID([]byte("another"))
	link := cbor.Tag{Number: 42, Content: cid.AppendBytes([]byte{0})}
	enc, err := cbor.CanonicalEncOptions().EncMode()
	if err != nil {
		t.Fatal(err)
	}
	body, err := enc.Marshal(map[string]any{"$type": "app.test.a", "text": "a \"b\"\n<é>", "n": -3, "ref": link, "sig": []byte{1, 2}})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// Every kind of event in both versions, field by field.
func TestJetstreamFormats(t *testing.T) {
	t.Parallel()
	body, did, us := linked(t), storetest.DID(7), int64(1_725_911_162_329_308)
	cid, other := repo.HashCID(body).String(), repo.HashCID([]byte("another")).String()
	record := `{"$type":"app.test.a","n":-3,"ref":{"$link":"` + other + `"},"sig":{"$bytes":"AQI"},"text":"a \"b\"\n<é>"}`
	commit := func(action store.Action, live bool) store.Event {
		ev := store.Event{ID: 12, Time: us, Kind: store.KindRecord, DID: did, Live: live, Rev: "3l3qo2vutsw2b",
			Action: action, Collection: []byte("app.test.a"), Rkey: []byte("3l3qo2vuowo2b")}
		if action != store.Delete {
			ev.Record, ev.CID = body, repo.HashCID(body)
		}
		return ev
	}
	fields := `"rev":"3l3qo2vutsw2b","operation":"%s","collection":"app.test.a","rkey":"3l3qo2vuowo2b"`
	whole := fields + `,"record":` + record + `,"cid":"` + cid + `"`
	commit1 := func(operation, fields string) string {
		return fmt.Sprintf(`{"did":"%s","time_us":1725911162329308,"cursor":12,"kind":"commit","commit":{`+fields+`}}`, did, operation)
	}
	commit2 := func(operation, fields string) string {
		return fmt.Sprintf(`{"$type":"message","payload":{"$type":"network.bsky.jetstream.subscribeEvents#commit","seq":12,`+
			`"did":"%s","time":"2024-09-09T19:46:02.329308Z",`+fields+`}}`, did, operation)
	}
	subject := fmt.Sprintf(`{"did":"%s","seq":12,"time":"2024-09-09T19:46:02.329308Z",`, did)
	subject1 := func(kind, rest string) string {
		return fmt.Sprintf(`{"did":"%s","time_us":1725911162329308,"cursor":12,"kind":"%s","%[2]s":%s}`, did, kind, subject+rest)
	}
	subject2 := func(kind, rest string) string {
		return fmt.Sprintf(`{"$type":"message","payload":{"$type":"network.bsky.jetstream.subscribeEvents#%s","seq":12,`+
			`"did":"%s","time":"2024-09-09T19:46:02.329308Z","%[1]s":%[3]s}}`, kind, did, subject+rest)
	}
	identity := func(handle string) store.Event {
		return store.Event{ID: 12, Time: us, Kind: store.KindIdentity, DID: did, Handle: handle, PDS: "https://pds.test"}
	}
	account := func(s store.Status) store.Event {
		return store.Event{ID: 12, Time: us, Kind: store.KindAccount, DID: did, Status: s}
	}
	for _, c := range []struct {
		name     string
		ev       store.Event
		one, two string
	}{
		{"create", commit(store.Create, true), commit1("create", whole), commit2("create", whole)},
		{"update", commit(store.Update, true), commit1("update", whole), commit2("update", whole)},
		{"delete", commit(store.Delete, true), commit1("delete", fields), commit2("delete", fields)},
		{"from a backfill", commit(store.Create, false), commit1("create", whole), commit2("create", whole)},
		{"identity", identity("a.test"), subject1("identity", `"handle":"a.test"}`), subject2("identity", `"handle":"a.test"}`)},
		{"no handle", identity(""), subject1("identity", `"handle":"handle.invalid"}`), subject2("identity", `"handle":"handle.invalid"}`)},
		{"bad handle", identity("a b"), subject1("identity", `"handle":"handle.invalid"}`), subject2("identity", `"handle":"handle.invalid"}`)},
		{"active", account(store.StatusActive), subject1("account", `"active":true}`), subject2("account", `"active":true}`)},
		{"takendown", account(store.StatusTakendown), subject1("account", `"active":false,"status":"takendown"}`), subject2("account", `"active":false,"status":"takendown"}`)},
		{"suspended", account(store.StatusSuspended), subject1("account", `"active":false,"status":"suspended"}`), subject2("account", `"active":false,"status":"suspended"}`)},
		{"deactivated", account(store.StatusDeactivated), subject1("account", `"active":false,"status":"deactivated"}`), subject2("account", `"active":false,"status":"deactivated"}`)},
		{"deleted", account(store.StatusDeleted), subject1("account", `"active":false,"status":"deleted"}`), subject2("account", `"active":false,"status":"deleted"}`)},
		{"without a word", account(store.StatusInactive), subject1("account", `"active":false}`), subject2("account", `"active":false}`)},
		{"unknown kind", store.Event{ID: 12, Time: us, Kind: 9, DID: did}, "", ""},
	} {
		for version, got := range map[string][2]string{"v1": {deliver.Encode1(&c.ev), c.one}, "v2": {deliver.Encode2(&c.ev), c.two}} {
			if (got[0] == "") != (got[1] == "") || got[0] != "" && !sameJSON(t, got[0], got[1]) {
				t.Errorf("%s %s:\n%s, want\n%s", version, c.name, got[0], got[1])
			}
		}
	}
	float := commit(store.Create, true) // no JSON form: neither version has a place to say so
	float.Record = []byte{0xa1, 0x61, 'x', 0xfb, 0, 0, 0, 0, 0, 0, 0, 0}
	if one, two := deliver.Encode1(&float), deliver.Encode2(&float); one+two != "" {
		t.Errorf("a record without a JSON form: %s %s", one, two)
	}
}

// sameJSON compares two objects, whatever the order of their keys.
func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y any
	if err := errors.Join(json.Unmarshal([]byte(a), &x), json.Unmarshal([]byte(b), &y)); err != nil {
		t.Fatalf("%s, %s: %v", a, b, err)
	}
	return reflect.DeepEqual(x, y)
}

// dial opens a stream of Jetstream. h may be nil.
func dial(t testing.TB, srv *httptest.Server, path string, h http.Header) *websocket.Conn {
	t.Helper()
	ws, res, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(srv.URL, "http")+path, h)
	if err != nil {
		text := []byte("no answer")
		if res != nil {
			text, _ = io.ReadAll(res.Body)
		}
		t.Fatalf("dial %s: %v: %s", path, err, text)
	}
	t.Cleanup(func() { _ = ws.Close() })
	if err := ws.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return ws
}

// refused checks that a stream is refused before the handshake, by an error that names a value.
func refused(t testing.TB, srv *httptest.Server, path string, h http.Header, name, value string) {
	t.Helper()
	ws, res, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(srv.URL, "http")+path, h)
	if err == nil {
		_ = ws.Close()
		t.Errorf("%.200s: a stream is opened, want %s", path, name)
		return
	}
	status := http.StatusBadRequest
	if name == "RateLimitExceeded" {
		status = http.StatusTooManyRequests
	}
	var e wire.ErrorBody
	if err := json.NewDecoder(res.Body).Decode(&e); err != nil || res.StatusCode != status || e.Error != name || !strings.Contains(e.Message, value) {
		t.Errorf("%.200s: %d %+v %v, want %s that names %s", path, res.StatusCode, e, err, name, value)
	}
}

// sent is a message of either version.
type sent struct {
	Type    string `json:"$type"` // of version 2
	Cursor  uint64 // of version 1
	TimeUS  int64  `json:"time_us"`
	Kind    string
	DID     string
	Error   string
	Payload struct {
		Type          string `json:"$type"`
		Seq           uint64
		Name, Message string
	}
	bytes int
}

func (m sent) id() uint64 { return m.Cursor + m.Payload.Seq }

func nextSent(t testing.TB, ws *websocket.Conn) (m sent) {
	t.Helper()
	kind, text, err := ws.ReadMessage()
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil || kind != websocket.TextMessage {
		t.Fatalf("message of kind %d %.200q: %v", kind, text, err)
	}
	m.bytes = len(text)
	return m
}

// wantSent reads the events with these ids.
func wantSent(t testing.TB, ws *websocket.Conn, ids ...uint64) {
	t.Helper()
	for _, id := range ids {
		if m := nextSent(t, ws); m.id() != id {
			t.Fatalf("got event %d: %+v, want %d", m.id(), m, id)
		}
	}
}

// span returns the ids from one to another.
func span(from, to uint64) (ids []uint64) {
	for ; from <= to; from++ {
		ids = append(ids, from)
	}
	return ids
}

// spaced makes identity events that are ten microseconds apart.
func spaced(n int) []store.Event {
	events := delivertest.Identities(n)
	for i := range events {
		events[i].Time = delivertest.FirstTime + 10*int64(i)
	}
	return events
}

// A cursor is a time from 10^15 on, exact to the event, or the number of an event.
func TestJetstreamCursors(t *testing.T) {
	t.Parallel()
	const n, oldest = 50, 11
	for _, path := range []string{subscribe1, subscribe2} {
		log := delivertest.NewLog(spaced(n)...)
		log.Tail = oldest
		srv := serveLog(t, log, deliver.Options{})
		at := func(id int64) int64 { return delivertest.FirstTime + 10*(id-1) }
		for _, c := range []struct {
			cursor string
			first  uint64 // n+1: live
		}{
			{"", n + 1},
			{"?cursor=", n + 1},
			{fmt.Sprint("?cursor=", at(20)), 20},
			{fmt.Sprint("?cursor=", at(20)-1), 20},
			{fmt.Sprint("?cursor=", at(20)+1), 21},
			{fmt.Sprint("?cursor=", at(oldest)), oldest},
			{fmt.Sprint("?cursor=", at(n)), n},
			{fmt.Sprint("?cursor=", at(n)+1), n + 1},
			{"?cursor=9223372036854775807", n + 1}, // 2^63-1, in the future
			{"?cursor=20", 20},
			{"?cursor=11", oldest},
			{"?cursor=50", n},
			{"?cursor=51", n + 1},
			{"?cursor=999999999999999", n + 1}, // the largest number
		} {
			ws := dial(t, srv, path+c.cursor, nil)
			wantSent(t, ws, span(c.first, min(n, c.first+2))...)
			_ = ws.Close()
			if c.first > n {
				ws := dial(t, srv, path+c.cursor, nil)
				log.Add(delivertest.Identity(1)) // and what comes next is sent
				if m := nextSent(t, ws); m.id() != log.Head() {
					t.Errorf("%s%s: event %d, want %d", path, c.cursor, m.id(), log.Head())
				}
				_ = ws.Close()
				log = delivertest.NewLog(spaced(n)...)
				log.Tail = oldest
				srv = serveLog(t, log, deliver.Options{})
			}
		}
		for _, bad := range []string{"-1", "abc", "1.5", "+1", "9223372036854775808", "1e15"} {
			refused(t, srv, path+"?cursor="+bad, nil, "InvalidRequest", "cursor")
		}
		refused(t, srv, path+"?cursor=1&cursor=2", nil, "InvalidRequest", "cursor")
		refused(t, srv, path+"?cursor=%zz", nil, "InvalidRequest", "%zz")
	}
}

// Below the oldest event, version 1 begins at it. Version 2 refuses a number, and says of a time
// where the stream begins.
func TestJetstreamOldCursors(t *testing.T) {
	t.Parallel()
	log := delivertest.NewLog(spaced(50)...)
	log.Tail = 11
	srv := serveLog(t, log, deliver.Options{})
	old := fmt.Sprint("?cursor=", delivertest.FirstTime+99)
	for _, cursor := range []string{"?cursor=0", "?cursor=10", old, "?cursor=1000000000000000"} {
		wantSent(t, dial(t, srv, subscribe1+cursor, nil), 11, 12)
	}
	refused(t, srv, subscribe2+"?cursor=0", nil, "CursorTooOld", "11")
	refused(t, srv, subscribe2+"?cursor=10", nil, "CursorTooOld", "11")
	for _, cursor := range []string{old, "?cursor=1000000000000000"} {
		ws := dial(t, srv, subscribe2+cursor, nil)
		m := nextSent(t, ws)
		if m.Type != "message" || m.Payload.Type != "network.bsky.jetstream.subscribeEvents#info" || m.Payload.Name != "OutdatedCursor" || !strings.Contains(m.Payload.Message, "11") {
			t.Errorf("%s: %+v", cursor, m)
		}
		wantSent(t, ws, 11, 12)
	}
	whole := serveLog(t, delivertest.NewLog(spaced(5)...), deliver.Options{}) // nothing was pruned
	wantSent(t, dial(t, whole, subscribe2+"?cursor=0", nil), 1, 2)
	fresh := delivertest.NewLog() // no event yet: a time is not before anything
	ws := dial(t, serveLog(t, fresh, deliver.Options{}), subscribe2+"?cursor=1000000000000000", nil)
	fresh.Add(delivertest.Identity(1))
	wantSent(t, ws, 1)
}

// FuzzJetstream: parameters are read or refused by name, and a stream begins within the log.
func FuzzJetstream(f *testing.F) {
	for _, query := range []string{
		"", "cursor=1725911162329308", "cursor=5", "cursor=-1", "wantedCollections=app.bsky.*&wantedDids=did:plc:abc",
		"kinds=commit&kinds=sync&collections=app.bsky.feed.post&dids=did:web:a.test", "maxMessageSizeBytes=4294967296",
		"compress=true", "zstdDictionary=20260811", "requireHello=true&cursor=9223372036854775807", "%zz", "kinds=", "collections=*",
	} {
		f.Add(query)
	}
	log := delivertest.NewLog(spaced(20)...)
	log.Tail = 3
	both := deliver.Subscribers(log)
	f.Fuzz(func(t *testing.T, query string) {
		for _, subscribe := range both {
			r := &http.Request{Method: http.MethodGet, URL: &url.URL{RawQuery: query}}
			cursor, err := subscribe(r)
			var refusal *wire.Refusal
			if err != nil && !errors.As(err, &refusal) {
				t.Errorf("%q: %v", query, err)
			}
			if err == nil && cursor > 21 {
				t.Errorf("%q: begins at %d", query, cursor)
			}
		}
	})
}

// FuzzJetstreamMessage: a message of a consumer is a filter, or an error, or ignored.
func FuzzJetstreamMessage(f *testing.F) {
	for _, message := range []string{
		`{"type":"options_update","payload":{"wantedCollections":["app.bsky.*"],"wantedDids":["did:plc:abc"],"maxMessageSizeBytes":10}}`,
		`{"type":"options_update","payload":{}}`, `{"type":"options_update"}`, `{"type":"options_update","payload":null}`, `{"type":"other","payload":[]}`,
		`{"type":"options_update","payload":{"wantedDids":[null]}}`, `{"type":"options_update","payload":{"maxMessageSizeBytes":-1e3}}`, `[]`, `{`, ``,
	} {
		f.Add(message)
	}
	f.Fuzz(func(t *testing.T, message string) {
		var wants *filter.Events
		wants, _, err := deliver.ReadOptions(strings.NewReader(message))
		if err != nil && (wants != nil || err.Error() == "") {
			t.Errorf("%q: %v and an error %q", message, wants, err)
		}
	})
}
