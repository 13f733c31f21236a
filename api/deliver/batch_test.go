package deliver_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"cistern/api/deliver"
	"cistern/api/deliver/delivertest"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
	"github.com/klauspost/compress/zstd"
)

// form reads the messages of a stream, whatever its form is.
type form struct {
	ws      *websocket.Conn
	zstd    *zstd.Decoder
	array   bool
	rest    []json.RawMessage
	longest int // messages of an array
	arrays  int
}

func (f *form) next(t *testing.T) string {
	t.Helper()
	for len(f.rest) == 0 {
		kind, text, err := f.ws.ReadMessage()
		if err == nil && f.zstd != nil {
			if text, err = f.zstd.DecodeAll(text, nil); kind != websocket.BinaryMessage {
				t.Errorf("a message of kind %d", kind)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		if !f.array {
			return string(text)
		}
		if err := json.Unmarshal(text, &f.rest); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		f.arrays++
		f.longest = max(f.longest, len(f.rest))
	}
	m := f.rest[0]
	f.rest = f.rest[1:]
	return string(m)
}

// TestStreamForms: however a stream is compressed, and however many events a message has, the events
// are the same, also those of a snapshot, and so are the messages between them.
func TestStreamForms(t *testing.T) {
	t.Parallel()
	s := heldStore(t)
	for i := range 7 {
		writeRecord(t, s, 1, "app.test.a/1", strings.Repeat("new ", 40*i))
	}
	srv := serveStore(t, s, deliver.Options{})
	res, err := http.Get(srv.URL + "/stream/dictionary")
	if err != nil {
		t.Fatal(err)
	}
	dict, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	z, err := zstd.NewReader(nil, zstd.WithDecoderDicts(dict))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(z.Close)
	// the snapshot, its marker and one event after it; or the log, an answer and an update of it
	const update = `{"type":"update","collections":["app.test.a"]}`
	open := func(query, compress string, batch int) *form {
		f := &form{array: batch > 0}
		dialer := &websocket.Dialer{EnableCompression: compress == "deflate"}
		if compress == "zstd" {
			query, f.zstd = query+"&compress=zstd", z
		}
		if batch > 0 {
			query += fmt.Sprintf("&batch=%d", batch)
		}
		ws, res, err := dialer.Dial("ws"+strings.TrimPrefix(srv.URL, "http")+"/stream"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := res.Header.Get("Sec-Websocket-Extensions"); (got != "") != (compress == "deflate") {
			t.Errorf("%s: the answer agrees on %q", compress, got)
		}
		t.Cleanup(func() { _ = ws.Close() })
		if err := ws.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		f.ws = ws
		return f
	}
	for _, query := range []string{"?snapshot=true", "?snapshot=true&include=cbor", "?cursor=0", "?cursor=0&include=cbor"} {
		n := 4 // three records and the marker
		if strings.Contains(query, "cursor") {
			n = 10
		}
		plain := open(query, "", 0)
		var want []string
		for range n {
			want = append(want, plain.next(t))
		}
		for _, compress := range []string{"", "zstd", "deflate"} {
			for _, batch := range []int{0, 1, 3, 1000} {
				f := open(query, compress, batch)
				var got []string
				for range n {
					got = append(got, f.next(t))
				}
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("%s, %s, %d: %s", query, compress, batch, d)
				}
				if f.longest > batch || batch == 1000 && n == 10 && f.arrays != 1 {
					t.Errorf("%s, %d: %d arrays of up to %d", query, batch, f.arrays, f.longest)
				}
				if err := f.ws.WriteMessage(websocket.TextMessage, []byte(update)); err != nil {
					t.Fatal(err)
				}
				if got, want := f.next(t), fmt.Sprintf(`{"type":"updated","id":%d}`, s.Head()+1); got != want {
					t.Errorf("%s, %s, %d: got %s, want %s", query, compress, batch, got, want)
				}
				if err := f.ws.WriteMessage(websocket.TextMessage, []byte(`{}`)); err != nil {
					t.Fatal(err)
				}
				if got := f.next(t); !strings.Contains(got, `"InvalidRequest"`) {
					t.Errorf("%s, %s, %d: got %s", query, compress, batch, got)
				}
				_ = f.ws.Close()
			}
		}
	}
}

// TestStreamFormRefusals: a form that does not exist is refused by its name. An offer of deflate that
// cannot be met is not accepted.
func TestStreamFormRefusals(t *testing.T) {
	t.Parallel()
	srv := serveLog(t, delivertest.NewLog(delivertest.Posts(2)...), deliver.Options{})
	for query, value := range map[string]string{
		"?compress=gzip": `compress "gzip"`, "?batch=0": `batch "0"`, "?batch=1001": `batch "1001"`, "?batch=x": `batch "x"`,
		"?batch=1&batch=2": "batch is given 2 times", "?include=json": `include "json"`,
	} {
		refused(t, srv, "/stream"+query, nil, "InvalidRequest", value)
	}
	for offer, accepted := range map[string]bool{
		"permessage-deflate":                                                     true,
		"permessage-deflate; client_max_window_bits":                             true,
		"permessage-deflate; server_max_window_bits=9":                           false,
		"permessage-deflate; server_max_window_bits=9, permessage-deflate; x=\"": true,
		"x-webkit-deflate-frame":                                                 false,
		"":                                                                       false,
	} {
		r, err := http.NewRequest(http.MethodGet, srv.URL+"/stream?cursor=1", nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{"Connection": "upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
			"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Extensions": offer} {
			r.Header.Set(name, value)
		}
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		first := make([]byte, 1)
		if _, err := io.ReadFull(res.Body, first); err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		agreed := strings.HasPrefix(res.Header.Get("Sec-Websocket-Extensions"), "permessage-deflate")
		if deflated := first[0] == 0xc1; agreed != accepted || deflated != accepted {
			t.Errorf("%q: accepted %t, deflated %t, want %t", offer, agreed, deflated, accepted)
		}
	}
}

// TestDeflatedMessageIsBounded: the limit of a message holds for what it is inflated to.
func TestDeflatedMessageIsBounded(t *testing.T) {
	t.Parallel()
	srv := serveLog(t, delivertest.NewLog(delivertest.Posts(1)...), deliver.Options{})
	dialer := &websocket.Dialer{EnableCompression: true}
	ws, _, err := dialer.Dial("ws"+strings.TrimPrefix(srv.URL, "http")+"/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ws.Close() })
	if err := ws.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	long := `{"type":"update"` + strings.Repeat(" ", 4<<20) + `}` // 4 KiB when deflated
	if err := ws.WriteMessage(websocket.TextMessage, []byte(long)); err != nil {
		t.Fatal(err)
	}
	if m := delivertest.Next(t, ws); m.Error != "InvalidRequest" || !strings.Contains(m.Message, "524288 bytes") {
		t.Errorf("%+v", m)
	}
	delivertest.Ends(t, ws, websocket.CloseMessageTooBig)
}
