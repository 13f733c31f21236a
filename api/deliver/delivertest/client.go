package delivertest

import (
	"encoding/binary"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// Message is any frame of the stream.
type Message struct {
	ID       uint64
	Next     uint64 // of the end of a snapshot
	Snapshot bool
	Token    string
	Type     string
	Error    string
	Message  string
	Record   *struct {
		Live             bool
		DID, Rev, Action string
		Collection, Rkey string
		CID              string
		Record           json.RawMessage
	}
	Account *struct {
		DID, Status string
		Active      bool
	}
	Identity *struct{ DID, Handle, PDS string }
}

// Follow opens a stream.
func Follow(t testing.TB, url, query string) *websocket.Conn {
	t.Helper()
	ws, res, err := websocket.DefaultDialer.Dial(
		"ws"+strings.TrimPrefix(url, "http")+"/stream"+query, nil)
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
	await(t, ws)
	return ws
}

// await gives the next message its time. A test may take as long as messages come.
func await(t testing.TB, ws *websocket.Conn) {
	t.Helper()
	if err := ws.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
}

// Next reads one message.
func Next(t testing.TB, ws *websocket.Conn) Message {
	t.Helper()
	await(t, ws)
	kind, text, err := ws.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	var m Message
	if err := json.Unmarshal(text, &m); err != nil || kind != websocket.TextMessage {
		t.Fatalf("message of kind %d %q: %v", kind, text, err)
	}
	return m
}

// Parse reads the text of a message.
func Parse(text []byte) (m Message, err error) { return m, json.Unmarshal(text, &m) }

// Ends reads the close frame.
func Ends(t testing.TB, ws *websocket.Conn, code int) {
	t.Helper()
	_, text, err := ws.ReadMessage()
	if !websocket.IsCloseError(err, code) {
		t.Errorf("got %q, %v, want close %d", text, err, code)
	}
}

// WantIDs reads the events from id from to id to.
func WantIDs(t testing.TB, ws *websocket.Conn, from, to uint64) {
	t.Helper()
	for id := from; id <= to; id++ {
		if m := Next(t, ws); m.ID != id {
			t.Fatalf("got event %d (%s %s), want %d", m.ID, m.Type, m.Error, id)
		}
	}
}

// SplitFrames returns the payloads of text frames, as RFC 6455 defines them.
func SplitFrames(t testing.TB, b []byte) []string {
	t.Helper()
	var out []string
	for len(b) > 0 {
		if b[0] != 0x81 || b[1]&0x80 != 0 {
			t.Fatalf("frame begins with %x", b[:2])
		}
		n, at := int(b[1]), 2
		switch n {
		case 126:
			n, at = int(binary.BigEndian.Uint16(b[2:])), 4
			if n < 126 {
				t.Fatalf("length %d is not in its shortest form", n)
			}
		case 127:
			n, at = int(binary.BigEndian.Uint64(b[2:])), 10
			if n < 65536 {
				t.Fatalf("length %d is not in its shortest form", n)
			}
		}
		out = append(out, string(b[at:at+n]))
		b = b[at+n:]
	}
	return out
}
