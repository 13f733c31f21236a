package deliver_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"cistern/api/deliver"
	"cistern/api/deliver/delivertest"
	"cistern/api/durable"
	"cistern/archive"
	"cistern/filter"
	"cistern/objects/objectstest"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
)

// TestArchive: over WebSocket, streams and a durable subscription get from an archive, byte for
// byte, what a stream got while the log was whole.
func TestArchive(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var now atomic.Int64
	now.Store(1_700_000_000_000_000)
	s := storetest.Open(t, store.Options{Archive: true, Retention: time.Minute,
		Now: func() time.Time { return time.UnixMicro(now.Load()) }})
	author := &storetest.Author{T: t, Store: s, Rand: rand.New(rand.NewPCG(seed, 1)), Repos: 8}
	for range 150 {
		author.Step()
	}
	write := func() { // the end that each stream waits for: every filter wants it
		wait, err := s.UpdateRepo(storetest.DID(3), func(b *store.Batch, r *store.Repo) error {
			b.Identity(r)
			return nil
		})
		if err == nil {
			err = wait()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write()
	queries := []string{"?cursor=1&kinds=record,account,identity,repo", "?cursor=0&collections=app.test.c1",
		"?cursor=57&dids=" + storetest.DID(3), "?cursor=1&actions=delete&kinds=record,identity,repo"}
	whole := make([]map[uint64]string, len(queries))
	for i, q := range queries {
		whole[i] = streamed(t, s, s.Head(), q)
	}
	to, _ := objectstest.Directory(t)
	a, err := archive.New(archive.Options{Store: s, Destination: to, SegmentBytes: 1 << 10, FrameEvents: 30})
	if err != nil {
		t.Fatal(err)
	}
	none := func(_, _ int64) {}
	for range 3 {
		now.Add((2 * time.Minute).Microseconds())
		err := errors.Join(a.Offload(t.Context(), none), s.Prune(t.Context(), none), s.CollectGarbage(t.Context(), none))
		if err != nil {
			t.Fatal(err)
		}
	}
	if s.Tail() != s.Head()+1 || len(s.Segments()) < 3 {
		t.Fatalf("tail %d of %d, %d segments", s.Tail(), s.Head(), len(s.Segments()))
	}
	for i, q := range queries {
		if diff := cmp.Diff(whole[i], streamed(t, a, s.Head(), q)); diff != "" {
			t.Errorf("%s: %s", q, diff)
		}
	}
	if diff := cmp.Diff(whole[0], subscribed(t, s, a)); diff != "" {
		t.Errorf("durable: %s", diff)
	}
}

// streamed returns the messages of a stream up to the head, by id.
func streamed(t *testing.T, log deliver.Log, head uint64, query string) map[uint64]string {
	t.Helper()
	ws := delivertest.Follow(t, serveLog(t, log, deliver.Options{PageEvents: 40}).URL, query)
	all := map[uint64]string{}
	for all[head] == "" {
		id, text := message(t, ws)
		if all[id] != "" {
			t.Errorf("event %d came twice", id)
		}
		all[id] = text
	}
	return all
}

func message(t *testing.T, ws *websocket.Conn) (id uint64, text string) {
	t.Helper()
	_, b, err := ws.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	m, err := delivertest.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return m.ID, string(b)
}

// subscribed returns the messages of a durable subscription up to the head, by id. The daemon
// restarts a few times, with events that are not acknowledged.
func subscribed(t *testing.T, s *store.Store, log deliver.Log) map[uint64]string {
	t.Helper()
	all := map[uint64]string{}
	for life := 0; all[s.Head()] == ""; life++ {
		subs, err := durable.New(durable.Options{Store: s, Log: log, WindowEvents: 70})
		if err != nil {
			t.Fatal(err)
		}
		want := durable.Wanted{Start: durable.Start{Oldest: true}, Filter: durable.Filter{Kinds: filter.EventKinds}}
		if _, made, err := subs.Put(t.Context(), "a", want); err != nil || made != (life == 0) {
			t.Fatal(made, err)
		}
		d, h := deliver.NewWith(log, deliver.Options{Subscriptions: subs, PageEvents: 40})
		srv := httptest.NewServer(h)
		ws := dial(t, srv, deliver.Events, nil)
		for n := 0; all[s.Head()] == "" && n < 300; n++ {
			id, text := message(t, ws)
			all[id] = text
			if life == 3 || n%7 > 0 || n > 250 {
				ack := fmt.Sprintf(`{"type":"ack","id":%d}`, id)
				if err := ws.WriteMessage(websocket.TextMessage, []byte(ack)); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = ws.Close()
		if err := d.Wait(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		srv.Close()
	}
	return all
}
