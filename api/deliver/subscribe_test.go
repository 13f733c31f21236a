package deliver_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"cistern/api/deliver"
	"cistern/api/deliver/delivertest"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/gorilla/websocket"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

// list returns a parameter that is repeated for each word of a list.
func list(name, words string) string {
	q := url.Values{}
	for word := range strings.SplitSeq(words, ",") {
		if word != "" {
			q.Add(name, word)
		}
	}
	return "&" + q.Encode()
}

// Streams with random filters get exactly what they want. Events of accounts and identities obey
// the accounts that are wanted, and not the collections.
func TestJetstreamFilters(t *testing.T) {
	t.Parallel()
	seed := uint64(rand.Int64())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	events := mixed(rnd, 2000)
	srv := serveLog(t, delivertest.NewLog(events...), deliver.Options{PageBytes: 3000})
	pick := func(words ...string) string { return words[rnd.IntN(len(words))] }
	for range 40 {
		collections := pick("", "app.test.a", "app.test.*", "app.test.b.c,com.test.a", "none.at.all", "app.*")
		dids := pick("", storetest.DID(1), storetest.DID(2)+","+storetest.DID(3), storetest.DID(9))
		from, kinds := rnd.IntN(len(events))+1, ""
		path := fmt.Sprintf("%s?cursor=%d", subscribe1, from) + list("wantedCollections", collections) + list("wantedDids", dids)
		if rnd.IntN(2) == 0 {
			kinds = pick("", "commit", "commit,account", "identity,sync", "sync", "commit,identity,account,sync")
			if !strings.Contains(kinds, "commit") && kinds != "" {
				collections = ""
			}
			path = fmt.Sprintf("%s?cursor=%d", subscribe2, from) + list("collections", collections) + list("dids", dids) + list("kinds", kinds)
		}
		ws := dial(t, srv, path, nil)
		for i := from; i <= len(events); i++ {
			if ev := &events[i-1]; ev.Kind == 0 || !wants(ev, collections, dids, strings.ReplaceAll(kinds, "commit", "record"), "", "") {
				continue
			}
			if m := nextSent(t, ws); m.id() != uint64(i) || m.TimeUS != 0 && m.TimeUS != delivertest.FirstTime+int64(i)-1 {
				t.Fatalf("%s: got %+v, want %d", path, m, i)
			}
		}
		_ = ws.Close()
	}
}

// Parameters that are wrong in themselves are refused before the handshake, by name.
func TestJetstreamRefusals(t *testing.T) {
	t.Parallel()
	srv := serveLog(t, delivertest.NewLog(), deliver.Options{})
	collections, dids := "", ""
	for i := range 101 {
		collections += fmt.Sprintf("app.test.c%d,", i)
	}
	for i := range 10_001 {
		dids += storetest.DID(i) + ","
	}
	encoding := http.Header{"Socket-Encoding": {"zstd"}}
	for _, c := range []struct {
		path   string
		header http.Header
		name   string
		value  string
	}{
		{subscribe1 + "?wantedCollections=nope", nil, "InvalidRequest", "nope"},
		{subscribe1 + "?wantedCollections=app.bsky.fe*", nil, "InvalidRequest", "fe*"},
		{subscribe1 + "?wantedCollections=app.bsky.a,app.bsky.b", nil, "InvalidRequest", "app.bsky.a,"}, // lists are given by repetition
		{subscribe1 + "?wantedDids=alice.test", nil, "InvalidRequest", "alice.test"},
		{subscribe1 + "?" + list("wantedCollections", collections), nil, "InvalidRequest", "101"},
		{subscribe1 + "?" + list("wantedDids", dids), nil, "InvalidRequest", "10001"},
		{subscribe1 + "?compress=true", nil, "InvalidRequest", "--jetstream-dictionary FILE"},
		{subscribe1, encoding, "InvalidRequest", "--jetstream-dictionary FILE"},
		{subscribe2 + "?kinds=record", nil, "InvalidRequest", "record"},
		{subscribe2 + "?kinds=commit&kinds=commit&kinds=commit&kinds=commit&kinds=commit", nil, "InvalidRequest", "kinds"},
		{subscribe2 + "?kinds=account&collections=app.bsky.feed.post", nil, "InvalidRequest", "commit"},
		{subscribe2 + "?" + list("collections", collections), nil, "InvalidRequest", "101"},
		{subscribe2 + "?" + list("dids", dids), nil, "InvalidRequest", "10001"},
		{subscribe2 + "?collections=nope", nil, "InvalidRequest", "nope"},
		{subscribe2 + "?dids=alice.test", nil, "InvalidRequest", "alice.test"},
		{subscribe2 + "?maxMessageSizeBytes=-1", nil, "InvalidRequest", "-1"},
		{subscribe2 + "?maxMessageSizeBytes=4294967296", nil, "InvalidRequest", "4294967296"},
		{subscribe2 + "?zstdDictionary=0", nil, "InvalidRequest", "zstdDictionary"},
		{subscribe2 + "?zstdDictionary=x", nil, "InvalidRequest", "zstdDictionary"},
		{subscribe2 + "?zstdDictionary=20260811", nil, "UnknownZstdDictionary", "the current one is 20261201"},
		{subscribe2 + "?wantedCollections=app.bsky.feed.post", nil, "InvalidRequest", "wantedCollections"},
		{subscribe2 + "?wantedDids=did:plc:a", nil, "InvalidRequest", "wantedDids"},
		{subscribe2 + "?requireHello=true", nil, "InvalidRequest", "requireHello"},
		{subscribe2 + "?compress=true", nil, "InvalidRequest", "compress"},
		{subscribe2, encoding, "InvalidRequest", "Socket-Encoding"},
	} {
		refused(t, srv, c.path, c.header, c.name, c.value)
	}
	for _, path := range []string{ // and what looks similar is not
		subscribe1 + "?maxMessageSizeBytes=x", subscribe1 + "?maxMessageSizeBytes=-1", subscribe1 + "?compress=1", subscribe1 + "?unknown=1",
		subscribe1 + "?" + list("wantedCollections", strings.Repeat("app.test.a,", 200)), // the same one
		subscribe2 + "?compress=false", subscribe2 + "?unknown=1", subscribe2 + "?maxMessageSizeBytes=4294967295", subscribe2 + "?kinds=sync&kinds=sync",
	} {
		_ = dial(t, srv, path, nil).Close()
	}
}

// Messages that are longer than a consumer wants are left out, to the byte.
func TestJetstreamMessageSize(t *testing.T) {
	t.Parallel()
	log := delivertest.NewLog(delivertest.Posts(100)...)
	srv := serveLog(t, log, deliver.Options{})
	for _, c := range []struct{ path, size string }{{subscribe1 + "?cursor=1", ""}, {subscribe2 + "?cursor=1", ""}} {
		all := make([]sent, 100)
		ws := dial(t, srv, c.path, nil)
		for i := range all {
			all[i] = nextSent(t, ws)
		}
		most := all[50].bytes
		ws = dial(t, srv, fmt.Sprintf("%s&maxMessageSizeBytes=%d", c.path, most), nil)
		left := 0
		for _, m := range all {
			if m.bytes <= most {
				wantSent(t, ws, m.id())
				continue
			}
			left++
		}
		if left == 0 {
			t.Error("no message is longer than the limit")
		}
	}
}

// whileAdding calls fn while events are added to a log.
func whileAdding(log *delivertest.Log, fn func(), events ...store.Event) {
	done := make(chan struct{})
	var g errgroup.Group
	g.Go(func() error {
		for {
			select {
			case <-done:
				return nil
			case <-time.After(time.Millisecond):
				log.Add(events...)
			}
		}
	})
	defer g.Wait()
	defer close(done)
	fn()
}

// update sends an options_update.
func update(t testing.TB, ws *websocket.Conn, payload string) {
	t.Helper()
	message := `{"type":"options_update","payload":` + payload + `}`
	if err := ws.WriteMessage(websocket.TextMessage, []byte(message)); err != nil {
		t.Fatal(err)
	}
}

// An options_update replaces all that the consumer wants, and other messages change nothing.
func TestJetstreamUpdate(t *testing.T) {
	t.Parallel()
	log := delivertest.NewLog()
	one, two := delivertest.Identity(1), delivertest.Identity(2)
	one.DID, two.DID = storetest.DID(1), storetest.DID(2)
	ws := dial(t, serveLog(t, log, deliver.Options{}), subscribe1+"?wantedDids="+one.DID, nil)
	// settled waits until a change holds: an event that it leaves out is followed by one that it lets pass.
	settled := func(gone, kept store.Event) {
		t.Helper()
		whileAdding(log, func() {
			for nextSent(t, ws).DID != kept.DID {
			}
			for range 5 {
				if m := nextSent(t, ws); m.DID != kept.DID {
					t.Errorf("the change does not hold for %+v", m)
				}
			}
		}, gone, kept)
	}
	settled(two, one)
	for _, ignored := range []string{`{"type":"other","payload":[]}`, `{}`, `{"type":"update"}`} {
		if err := ws.WriteMessage(websocket.TextMessage, []byte(ignored)); err != nil {
			t.Fatal(err)
		}
	}
	if err := ws.WriteMessage(websocket.BinaryMessage, []byte{1}); err != nil {
		t.Fatal(err)
	}
	settled(two, one)
	update(t, ws, `{"wantedDids":["`+two.DID+`"],"maxMessageSizeBytes":100000}`)
	settled(one, two)
	long := delivertest.Posts(1)[0]
	update(t, ws, `{"maxMessageSizeBytes":1}`) // everything is longer
	log.Add(one, two, long)
	update(t, ws, `{}`) // everything is wanted
	whileAdding(log, func() {
		for nextSent(t, ws).Kind != "commit" {
		}
	}, long)
}

// A stream with requireHello begins with the first options_update.
func TestJetstreamHello(t *testing.T) {
	t.Parallel()
	log := delivertest.NewLog(spaced(5)...)
	srv := serveLog(t, log, deliver.Options{})
	live, old := dial(t, srv, subscribe1+"?requireHello=true", nil), dial(t, srv, subscribe1+"?requireHello=true&cursor=3", nil)
	never := dial(t, srv, subscribe1+"?requireHello=True&cursor=3", nil) // not the word
	wantSent(t, never, 3, 4, 5)
	log.Add(delivertest.Identity(6))
	for _, ws := range []*websocket.Conn{live, old} { // pings are answered, and nothing is sent
		pong := make(chan string, 1)
		ws.SetPongHandler(func(text string) error { pong <- text; return websocket.ErrBadHandshake })
		if err := ws.WriteControl(websocket.PingMessage, []byte("hello"), time.Now().Add(time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, text, _ := ws.NextReader(); text != nil || <-pong != "hello" {
			t.Error("something is sent before the hello")
		}
	}
	for path, first := range map[string]uint64{"": 7, "&cursor=3": 3} {
		ws := dial(t, srv, subscribe1+"?requireHello=true"+path, nil)
		if err := ws.WriteMessage(websocket.TextMessage, []byte(`{"type":"other"}`)); err != nil {
			t.Fatal(err)
		}
		update(t, ws, `{"wantedDids":["did:plc:6"]}`)
		if first == 7 {
			update(t, ws, `{}`)
			whileAdding(log, func() { // it begins at the head, whenever the message arrives
				if m := nextSent(t, ws); m.id() <= 6 {
					t.Error("an event from before the hello is sent")
				}
			}, delivertest.Identity(6))
			continue
		}
		wantSent(t, ws, 6)
	}
}

// TestJetstreamHelloAtTheHead: a consumer that goes on at the head, by a number or a time, also gets
// the events that come between the handshake and its hello.
func TestJetstreamHelloAtTheHead(t *testing.T) {
	t.Parallel()
	for _, cursor := range []uint64{4, delivertest.FirstTime + 3, 1 << 62} {
		log := delivertest.NewLog(delivertest.Identities(3)...)
		path := fmt.Sprintf("%s?requireHello=true&cursor=%d", subscribe1, cursor)
		ws := dial(t, serveLog(t, log, deliver.Options{}), path, nil)
		log.Add(delivertest.Identities(2)...)
		update(t, ws, `{}`)
		log.Add(delivertest.Identity(6)) // so that the test does not wait if the others are lost
		wantSent(t, ws, 4, 5, 6)
	}
}

// An invalid message ends a stream of version 1, with the reason in the close frame.
func TestJetstreamInvalidMessages(t *testing.T) {
	t.Parallel()
	srv := serveLog(t, delivertest.NewLog(), deliver.Options{})
	many := make([]string, 10_001)
	for i := range many {
		many[i] = storetest.DID(i)
	}
	for message, says := range map[string]string{
		`{"type":"options_update","payload":{"wantedDids":["` + strings.Join(many, `","`) + `"]}}`: "10001",
		`{`: "unexpected end", `[]`: "array",
		`{"type":"options_update","payload":[]}`:                                                            "array",
		`{"type":"options_update","payload":{"wantedCollections":["nope"]}}`:                                "nope",
		`{"type":"options_update","payload":{"wantedDids":["alice.test"]}}`:                                 "alice.test",
		`{"type":"options_update","payload":{"wantedDids":["` + "é" + `"]}}`:                                "é",
		`{"type":"options_update","payload":{"maxMessageSizeBytes":"1"}}`:                                   "maxMessageSizeBytes",
		`{"type":"options_update","payload":{"wantedCollections":[` + strings.Repeat(`"é",`, 200) + `""]}}`: "é",
	} {
		for _, hello := range []string{"", "?requireHello=true"} {
			ws := dial(t, srv, subscribe1+hello, nil)
			if err := ws.WriteMessage(websocket.TextMessage, []byte(message)); err != nil {
				t.Fatal(err)
			}
			_, text, err := ws.ReadMessage()
			if !websocket.IsCloseError(err, websocket.ClosePolicyViolation) || !strings.Contains(err.Error(), says) {
				t.Errorf("%.80s: %q %v, want a close that says %s", message, text, err, says)
			}
		}
	}
	ws := dial(t, srv, subscribe1, nil) // more than a message may have
	_ = ws.WriteMessage(websocket.TextMessage, make([]byte, 1<<20+1))
	delivertest.Ends(t, ws, websocket.CloseMessageTooBig)
}

// TestMessagesAfterTheEnd: the reason for the end of a stream arrives although the consumer goes on
// sending messages, and events were on their way.
func TestMessagesAfterTheEnd(t *testing.T) {
	storetest.WithoutRace(t) // which makes it too slow for its deadlines
	t.Parallel()
	srv := serveLog(t, delivertest.NewLog(delivertest.Posts(3000)...), deliver.Options{})
	for path, most := range map[string]int{subscribe1: 1 << 20, subscribe2: 0, "/stream": 512 << 10} {
		for size, code := range map[int]int{1: websocket.ClosePolicyViolation, 50_000: websocket.ClosePolicyViolation, most + 1: websocket.CloseMessageTooBig} {
			if most == 0 {
				code = websocket.ClosePolicyViolation // no message is accepted
			}
			for range 5 {
				ws := dial(t, srv, path+"?cursor=1", nil)
				for range 10 {
					_ = ws.WriteMessage(websocket.TextMessage, make([]byte, size)) // the stream may have ended
				}
				var err error
				for err == nil {
					_, _, err = ws.ReadMessage()
				}
				if !websocket.IsCloseError(err, code) {
					t.Errorf("%s, messages of %d bytes: %v, want close %d", path, size, err, code)
				}
				_ = ws.Close()
			}
		}
	}
}

// Any message of a consumer of version 2 ends its stream.
func TestJetstreamTakesNoMessages(t *testing.T) {
	t.Parallel()
	srv := serveLog(t, delivertest.NewLog(), deliver.Options{})
	for _, kind := range []int{websocket.TextMessage, websocket.BinaryMessage} {
		for _, size := range []int{0, 1, 100_000} {
			ws := dial(t, srv, subscribe2, nil)
			if err := ws.WriteMessage(kind, make([]byte, size)); err != nil {
				t.Fatal(err)
			}
			delivertest.Ends(t, ws, websocket.ClosePolicyViolation)
		}
	}
	for offer, want := range map[string]string{"xrpc.v1.json": "xrpc.v1.json", "XRPC.v1.json": "", "other, xrpc.v1.json": "xrpc.v1.json", "": ""} {
		h := http.Header{}
		if offer != "" {
			h.Set("Sec-WebSocket-Protocol", offer)
		}
		if got := dial(t, srv, subscribe2, h).Subprotocol(); got != want {
			t.Errorf("offer %q: %q is echoed, want %q", offer, got, want)
		}
	}
}

// Errors within a stream: version 2 has a message for them, version 1 the close frame only.
func TestJetstreamReadError(t *testing.T) {
	t.Parallel()
	log := delivertest.NewLog(spaced(3)...)
	log.Fail = store.ErrCorrupt
	srv := serveLog(t, log, deliver.Options{})
	delivertest.Ends(t, dial(t, srv, subscribe1+"?cursor=1", nil), websocket.CloseInternalServerErr)
	ws := dial(t, srv, subscribe2+"?cursor=1", nil)
	if m := nextSent(t, ws); m.Type != "error" || m.Error != "InternalError" {
		t.Errorf("%+v", m)
	}
	delivertest.Ends(t, ws, websocket.CloseInternalServerErr)
}

// dictionary trains one on posts.
func dictionary(t testing.TB, id uint32) []byte {
	t.Helper()
	var samples [][]byte
	history := []byte{}
	for _, ev := range delivertest.Posts(200) {
		text := []byte(deliver.Encode1(&ev))
		samples = append(samples, text)
		if len(history) < 4000 {
			history = append(history, text...)
		}
	}
	dict, err := zstd.BuildDict(zstd.BuildDictOptions{ID: id, Contents: samples, History: history, Offsets: [3]int{1, 4, 8}})
	if err != nil {
		t.Fatal(err)
	}
	return dict
}

// With a dictionary, each message of version 1 can be a zstd frame of its own.
func TestJetstreamCompressed(t *testing.T) {
	t.Parallel()
	dict := dictionary(t, 1612007021)
	srv := serveLog(t, delivertest.NewLog(delivertest.Posts(300)...), deliver.Options{Jetstream1Dictionary: dict})
	z, err := zstd.NewReader(nil, zstd.WithDecoderDicts(dict))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(z.Close)
	encoding := http.Header{"Socket-Encoding": {"zstd"}}
	plain := dial(t, srv, subscribe1+"?cursor=1", nil)
	param, header := dial(t, srv, subscribe1+"?cursor=1&compress=true", nil), dial(t, srv, subscribe1+"?cursor=1", encoding)
	sizes, texts := [2]int{}, []string{}
	for range 300 {
		_, want, err := plain.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(want))
		for _, ws := range []*websocket.Conn{param, header} {
			kind, frame, err := ws.ReadMessage()
			if err != nil || kind != websocket.BinaryMessage {
				t.Fatalf("message of kind %d: %v", kind, err)
			}
			got, err := z.DecodeAll(frame, nil)
			if err != nil || string(got) != string(want) {
				t.Fatalf("%s: %v, want %s", got, err, want)
			}
			sizes[0], sizes[1] = sizes[0]+len(frame), sizes[1]+len(want)
		}
	}
	if 2*sizes[0] > sizes[1] {
		t.Errorf("%d of %d bytes: the dictionary is not used", sizes[0], sizes[1])
	}
	// The size of a message is that before compression.
	most := len(texts[50])
	short := dial(t, srv, fmt.Sprintf("%s?cursor=1&compress=true&maxMessageSizeBytes=%d", subscribe1, most), nil)
	left := 0
	for _, want := range texts {
		if len(want) > most {
			left++
			continue
		}
		_, frame, err := short.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := z.DecodeAll(frame, nil); err != nil || string(got) != want {
			t.Fatalf("with at most %d bytes: %s, %v, want %s", most, got, err, want)
		}
	}
	if left == 0 {
		t.Error("no message is longer than the limit")
	}
	refused(t, srv, subscribe1+"?compress=true", http.Header{"Sec-WebSocket-Extensions": {"permessage-deflate; client_max_window_bits"}}, "InvalidRequest", "permessage-deflate")
	_ = dial(t, srv, subscribe1, nil).Close()
	if _, err := deliver.New(deliver.Options{Log: delivertest.NewLog(), Refusal: func(error) (string, string) { return "", "" }, Jetstream1Dictionary: []byte("none")}); err == nil || !strings.Contains(err.Error(), "dictionary") {
		t.Errorf("a file that is no dictionary: %v", err)
	}
}
