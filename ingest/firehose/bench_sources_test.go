package firehose_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"cistern/ingest/firehose"
	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/fxamacker/cbor/v2"
	"github.com/gorilla/websocket"
)

// BenchmarkSource reads commits of 5 KB from a socket and passes over them. The sender is in it.
func BenchmarkSource(b *testing.B) {
	const size = 5000
	link := cbor.Tag{Number: 42, Content: repo.HashCID(nil).AppendBytes([]byte{0})}
	messages := make([]*websocket.PreparedMessage, 0, b.N)
	message := func(seq int64) []byte {
		return encode(header("#commit"), map[string]any{
			"seq": seq, "repo": storetest.DID(1), "time": "2026-01-02T03:04:05.678Z", "rev": storetest.Rev(1), "since": nil, "tooBig": false, "rebase": false,
			"blobs": []any{}, "blocks": make([]byte, size), "commit": link, "ops": []any{map[string]any{"action": "create", "path": "a.b.c/d", "cid": link}},
		})
	}
	for i := range b.N {
		m, err := websocket.NewPreparedMessage(websocket.BinaryMessage, message(int64(i)+1))
		if err != nil {
			b.Fatal(err)
		}
		messages = append(messages, m)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		up := websocket.Upgrader{}
		conn, err := up.Upgrade(w, req, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		for _, m := range messages {
			if conn.WritePreparedMessage(m) != nil {
				return
			}
		}
		_, _, _ = conn.ReadMessage()
	}))
	defer srv.Close()
	r, err := firehose.New(firehose.Options{Store: storetest.Open(b, store.Options{}), AllowPrivate: true, Sources: []store.Source{{URL: srv.URL}}})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var n atomic.Int64
	submit := func(_ context.Context, e *firehose.Event) error {
		e.Skip()
		if n.Add(1) == int64(b.N) {
			cancel()
		}
		return nil
	}
	ctx, timeout := context.WithTimeout(ctx, time.Minute)
	defer timeout()
	b.SetBytes(size)
	b.ReportAllocs()
	b.ResetTimer()
	if err := r.Run(ctx, submit); err != nil {
		b.Fatal(err)
	}
	if n.Load() != int64(b.N) {
		b.Fatalf("%d of %d events: %+v", n.Load(), b.N, r.Status())
	}
}
