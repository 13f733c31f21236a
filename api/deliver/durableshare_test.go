package deliver_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/api/deliver/delivertest"
	"cistern/api/durable"
	"cistern/store"

	"github.com/gorilla/websocket"
)

// shared are consumers of one subscription, by DID.
type shared struct {
	*durableWorld
	t *testing.T

	consumers sync.WaitGroup
	open      []*websocket.Conn

	mu    sync.Mutex
	acked map[uint64]bool // mu guards
	came  map[uint64]int  // mu guards: how often an event came
}

func newShared(t *testing.T, o durable.Options, events ...store.Event) *shared {
	t.Helper()
	s := &shared{durableWorld: newDurableWorld(t, o, events...), t: t, acked: map[uint64]bool{},
		came: map[uint64]int{}}
	s.put(t, durable.Wanted{Share: durable.ByDID}, false)
	return s
}

// connect begins a connection for each consumer, and has them consume once all are open.
func (s *shared) connect(consumers ...func(ws *websocket.Conn)) {
	s.t.Helper()
	for range consumers {
		s.open = append(s.open, s.follow(s.t))
	}
	for i, consume := range consumers {
		s.consumers.Go(func() { consume(s.open[i]) })
	}
}

func (s *shared) consumeAll(ws *websocket.Conn) { s.consume(ws, 1<<30) }

// end ends all connections.
func (s *shared) end() {
	for _, ws := range s.open {
		_ = ws.Close()
	}
	s.consumers.Wait()
}

// consume acknowledges what comes on a connection, until it ends or has had most events. It checks
// that events of an account come in order.
func (s *shared) consume(ws *websocket.Conn, most int) (dids map[string]bool) {
	last := map[string]uint64{}
	dids = map[string]bool{}
	for range most {
		_, text, err := ws.ReadMessage()
		if err != nil {
			break
		}
		m, err := delivertest.Parse(text)
		if err != nil || m.Identity == nil {
			s.t.Errorf("%s, %v", text, err)
			break
		}
		did := m.Identity.DID
		s.mu.Lock()
		for id := last[did] + 1; id < m.ID; id++ {
			if s.log.DID(id) == did && !s.acked[id] {
				s.t.Errorf("event %d came before %d of the same account", m.ID, id)
			}
		}
		s.acked[m.ID] = true
		s.came[m.ID]++
		s.mu.Unlock()
		last[did], dids[did] = m.ID, true
		if ws.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `{"type":"ack","id":%d}`, m.ID)) != nil {
			break
		}
	}
	return dids
}

// drained waits until everything is acknowledged, and checks that everything came.
func (s *shared) drained() {
	s.t.Helper()
	s.until(s.t, "drained", func(st durable.Status) bool { return st.Outstanding == 0 && st.Lag == 0 })
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := uint64(1); id <= s.log.Head(); id++ {
		if s.came[id] == 0 {
			s.t.Fatalf("event %d never came", id)
		}
	}
}

// Connections share the accounts. When one breaks off, the others get what it had, and nothing else
// comes twice.
func TestDurableShared(t *testing.T) {
	t.Parallel()
	var log syncBuffer
	var events []store.Event
	for i := range 3000 {
		events = append(events, delivertest.Identity(i%40))
	}
	s := newShared(t, durable.Options{WindowEvents: 100, Logger: slog.New(slog.NewTextHandler(&log, nil))}, events...)
	dids := make([]map[string]bool, 3)
	s.connect(func(ws *websocket.Conn) {
		dids[0] = s.consume(ws, 200)
		_ = ws.Close() // and leaves events that it has not acknowledged
	}, func(ws *websocket.Conn) { dids[1] = s.consume(ws, 1<<30) },
		func(ws *websocket.Conn) { dids[2] = s.consume(ws, 1<<30) })
	s.drained()
	s.until(t, "one has gone", func(st durable.Status) bool { return len(st.Connections) == 2 })
	if st := s.status(t); st.Share != durable.ByDID || st.Connections[0].Number != 2 || st.Connections[1].Number != 3 {
		t.Errorf("%+v", st)
	}
	s.mu.Lock()
	for id, n := range s.came {
		if n > 2 {
			t.Errorf("event %d came %d times", id, n)
		}
	}
	s.mu.Unlock()
	s.end()
	for i, had := range dids {
		if len(had) == 0 {
			t.Errorf("connection %d got nothing", i)
		}
	}
	if !strings.Contains(log.String(), "shared by several connections") || !strings.Contains(log.String(), "connections=3") {
		t.Errorf("the log does not say that connections share: %s", log.String())
	}
}

// A connection that reads and acknowledges nothing does not stop the others for ever.
func TestDurableSharedStall(t *testing.T) {
	t.Parallel()
	var events []store.Event
	for i := range 2000 {
		events = append(events, delivertest.Identity(i%40))
	}
	s := newShared(t, durable.Options{WindowEvents: 50, RetryTimeout: 300 * time.Millisecond}, events...)
	s.connect(func(ws *websocket.Conn) {
		for {
			if _, _, err := ws.ReadMessage(); err != nil {
				return
			}
		}
	}, s.consumeAll)
	s.drained()
	s.end()
}

// What connections share is theirs again after a restart, in order, though the accounts of
// outstanding events are then to be read.
func TestDurableSharedRestart(t *testing.T) {
	t.Parallel()
	var events []store.Event
	for i := range 400 {
		events = append(events, delivertest.Identity(i%7))
	}
	s := newShared(t, durable.Options{WindowEvents: 60}, events...)
	ws := s.follow(t)
	for range 60 {
		delivertest.Next(t, ws)
	}
	acknowledge(t, ws, 3, 5, 11, 17, 18, 19, 40, 60)
	s.until(t, "acknowledged", func(st durable.Status) bool { return st.Next == 69 })
	for _, id := range []uint64{3, 5, 11, 17, 18, 19, 40, 60} {
		s.acked[id], s.came[id] = true, 1
	}
	s.close(t, ws)
	s.stop(t)
	s.log.Hide(2, 50)
	s.came[2], s.came[50], s.acked[2], s.acked[50] = 1, 1, true, true
	s.start(t, durable.Options{WindowEvents: 60})
	s.connect(s.consumeAll, s.consumeAll, s.consumeAll)
	s.drained()
	s.end()
	for _, id := range []uint64{3, 19, 60} {
		if s.came[id] != 1 {
			t.Errorf("event %d was acknowledged and came again", id)
		}
	}
}

// A share takes effect for new connections, and what two connections share does not become exclusive.
func TestDurableSharePut(t *testing.T) {
	t.Parallel()
	s := newShared(t, durable.Options{}, delivertest.Identities(1)...)
	a, b := s.follow(t), s.follow(t)
	_, _, err := s.subs.Put(t.Context(), "a", durable.Wanted{})
	if err == nil || !strings.Contains(err.Error(), "Conflict") || !strings.Contains(err.Error(), "2 open connections") {
		t.Error(err)
	}
	if st := s.status(t); st.Share != durable.ByDID || len(st.Connections) != 2 {
		t.Errorf("%+v", st)
	}
	_ = b.Close()
	s.until(t, "one has gone", func(st durable.Status) bool { return len(st.Connections) == 1 })
	s.put(t, durable.Wanted{}, false)
	refused(t, s.srv, "/subscriptions/a/events", nil, "Conflict", "exclusive")
	if all, err := s.store.Subscriptions(); err != nil || len(all) != 1 || all[0].Share != "" {
		t.Errorf("%+v, %v", all, err)
	}
	s.put(t, durable.Wanted{Share: durable.ByDID}, false)
	_ = s.follow(t).Close()
	_ = a.Close()
	if _, _, err := s.subs.Put(t.Context(), "a", durable.Wanted{Share: "random"}); err == nil || !strings.Contains(err.Error(), `"random"`) {
		t.Error(err)
	}
}

// syncBuffer is a buffer for a logger.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
