package deliver_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"cistern/api/deliver"
	"cistern/api/deliver/delivertest"
	"cistern/api/durable"
	"cistern/api/wire"
	"cistern/store"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/gorilla/websocket"
)

// durableWorld is a log in memory with a durable subscription a, whose rows are in a store.
type durableWorld struct {
	log   *delivertest.Log // nil: that of the store
	store *store.Store
	subs  *durable.Registry
	*deliver.Delivery
	stream deliver.Options
	srv    *httptest.Server
}

func newDurableWorld(t *testing.T, o durable.Options, events ...store.Event) *durableWorld {
	t.Helper()
	return newDurableWorldWith(t, deliver.Options{PageEvents: 50}, o, events...)
}

func newDurableWorldWith(t *testing.T, stream deliver.Options, o durable.Options, events ...store.Event) *durableWorld {
	t.Helper()
	s, err := store.Open(store.Options{FS: vfs.NewMem(), Dir: "db"}) // its own log is empty
	if err != nil {
		t.Fatal(err)
	}
	w := &durableWorld{log: delivertest.NewLog(events...), store: s, stream: stream}
	t.Cleanup(func() {
		w.stop(t)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	w.start(t, o)
	w.put(t, durable.Wanted{Start: durable.Start{Oldest: true}}, true)
	return w
}

func (w *durableWorld) start(t *testing.T, o durable.Options) {
	t.Helper()
	log := deliver.Log(w.log)
	if w.log == nil {
		log = w.store
	}
	o.Store, o.Log = w.store, log
	var err error
	if w.subs, err = durable.New(o); err != nil {
		t.Fatal(err)
	}
	w.stream.Subscriptions = w.subs
	d, h := deliver.NewWith(log, w.stream)
	w.Delivery, w.srv = d, httptest.NewServer(h)
}

func (w *durableWorld) stop(t *testing.T) {
	t.Helper()
	w.srv.CloseClientConnections()
	if err := w.Wait(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
	w.srv.Close()
}

func (w *durableWorld) put(t *testing.T, c durable.Wanted, made bool) durable.Status {
	t.Helper()
	st, m, err := w.subs.Put(t.Context(), "a", c)
	if m != made || err != nil {
		t.Fatalf("made %t, %v", m, err)
	}
	return st
}

func (w *durableWorld) follow(t *testing.T) *websocket.Conn {
	t.Helper()
	return dial(t, w.srv, deliver.Events, nil)
}

func (w *durableWorld) status(t *testing.T) durable.Status {
	t.Helper()
	st, err := w.subs.Status("a")
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// until waits until a status holds.
func (w *durableWorld) until(t *testing.T, what string, holds func(durable.Status) bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(w.status(t)); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: the status is %+v", what, w.status(t))
		}
	}
}

// close ends a connection, and waits until the subscription can be opened again.
func (w *durableWorld) close(t *testing.T, ws *websocket.Conn) {
	t.Helper()
	_ = ws.Close()
	w.until(t, "closed", func(st durable.Status) bool { return len(st.Connections) == 0 })
}

func acknowledgeGap(t *testing.T, ws *websocket.Conn, from, to uint64) {
	t.Helper()
	message := fmt.Appendf(nil, `{"type":"ack","id":%d,"to":%d}`, from, to)
	if err := ws.WriteMessage(websocket.TextMessage, message); err != nil {
		t.Fatal(err)
	}
}

func acknowledge(t *testing.T, ws *websocket.Conn, ids ...uint64) {
	t.Helper()
	for _, id := range ids {
		if err := ws.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `{"type":"ack","id":%d}`, id)); err != nil {
			t.Fatal(err)
		}
	}
}

// wantEach reads events with these ids.
func wantEach(t *testing.T, ws *websocket.Conn, ids ...uint64) {
	t.Helper()
	for _, id := range ids {
		delivertest.WantIDs(t, ws, id, id)
	}
}

// byAccount returns identity events of these accounts.
func byAccount(accounts ...int) (events []store.Event) {
	for _, n := range accounts {
		events = append(events, delivertest.Identity(n))
	}
	return events
}

// An event that is not acknowledged is sent again after the retry timeout, with the later events of
// its account and no others.
func TestDurableRedelivery(t *testing.T) {
	t.Parallel()
	w := newDurableWorld(t, durable.Options{RetryTimeout: 300 * time.Millisecond}, byAccount(1, 2, 1, 3, 1)...)
	ws := w.follow(t)
	wantEach(t, ws, 1, 2, 3, 4, 5)
	acknowledge(t, ws, 4, 3, 2, 4, 99) // in any order, again, and what is unknown
	w.until(t, "two are left", func(st durable.Status) bool { return st.Outstanding == 2 })
	// Before the acknowledgements arrived, more may have been sent again.
	for last := make([]uint64, 4); !slices.Equal(last, []uint64{1, 5, 1, 5}); {
		last = append(last[1:], delivertest.Next(t, ws).ID)
	}
	acknowledge(t, ws, 1)
	w.until(t, "one is left", func(st durable.Status) bool { return st.Outstanding == 1 && st.Redelivered >= 4 })
	acknowledge(t, ws, 5)
	w.until(t, "nothing is left", func(st durable.Status) bool { return st.Outstanding == 0 && st.Next == 6 && st.Lag == 0 })
}

// At most the window is outstanding, and an acknowledgement makes room.
func TestDurableWindow(t *testing.T) {
	t.Parallel()
	w := newDurableWorld(t, durable.Options{WindowEvents: 10}, delivertest.Identities(1000)...)
	ws := w.follow(t)
	for id := uint64(1); id <= 1000; id++ {
		wantEach(t, ws, id)
		if st := w.status(t); st.Outstanding > 10 || st.Next > id+10 {
			t.Fatalf("after event %d: %+v", id, st)
		}
		acknowledge(t, ws, id)
	}
}

// Every outstanding event comes at once with a new connection, before new events, also after a
// restart; acknowledged ones do not.
func TestDurableReconnect(t *testing.T) {
	t.Parallel()
	w := newDurableWorld(t, durable.Options{WindowEvents: 5}, byAccount(1, 2, 1, 2, 1, 2, 1)...)
	ws := w.follow(t)
	wantEach(t, ws, 1, 2, 3, 4, 5)
	acknowledge(t, ws, 2, 3)
	wantEach(t, ws, 6, 7)
	acknowledge(t, ws, 6)
	w.until(t, "four are left", func(st durable.Status) bool { return st.Outstanding == 4 && st.Next == 8 })
	w.close(t, ws)
	ws = w.follow(t)
	wantEach(t, ws, 1, 4, 5, 7)
	acknowledge(t, ws, 4)
	w.until(t, "three are left", func(st durable.Status) bool { return st.Outstanding == 3 })
	_ = ws.Close()
	w.stop(t)
	w.log.Add(byAccount(1)...)
	w.start(t, durable.Options{WindowEvents: 5})
	wantEach(t, w.follow(t), 1, 5, 7, 8)
}

// A subscription has one connection. What is wrong is refused by name.
func TestDurableRefusals(t *testing.T) {
	t.Parallel()
	w := newDurableWorld(t, durable.Options{}, delivertest.Identities(1)...)
	ws := w.follow(t)
	wantEach(t, ws, 1)
	refused(t, w.srv, deliver.Events, nil, "Conflict", "subscription a has an open connection")
	for _, bad := range []string{`x`, `{}`, `{"type":"ack"}`, `{"type":"nack","id":1}`, `{"type":"ack","id":-1}`, `{"type":"ack","id":1,"more":1}`, `{"type":"ack","id":1,"to":-1}`} {
		if err := ws.WriteMessage(websocket.TextMessage, []byte(bad)); err != nil {
			t.Fatal(err)
		}
		if m := delivertest.Next(t, ws); m.Type != "error" || m.Error != "InvalidRequest" {
			t.Errorf("%s: %+v", bad, m)
		}
		delivertest.Ends(t, ws, websocket.ClosePolicyViolation)
		w.close(t, ws)
		ws = w.follow(t)
		wantEach(t, ws, 1)
	}
	for _, name := range []string{"", "A", "a/b", strings.Repeat("a", 65)} {
		_, _, err := w.subs.Put(t.Context(), name, durable.Wanted{})
		var r *wire.Refusal
		if !errors.As(err, &r) || r.Name != "InvalidRequest" {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, _, err := w.subs.Put(t.Context(), "b", durable.Wanted{Start: durable.Start{ID: 3}}); !errors.Is(err, store.ErrFutureCursor) {
		t.Error(err)
	}
	if err := w.subs.Drop("a"); err != nil {
		t.Fatal(err)
	}
	if m := delivertest.Next(t, ws); m.Error != "NotFound" {
		t.Errorf("%+v", m)
	}
	delivertest.Ends(t, ws, websocket.ClosePolicyViolation)
	refused(t, w.srv, deliver.Events, nil, "NotFound", `"a"`)
	if err := w.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if all, err := w.store.Subscriptions(); len(all) != 0 || err != nil {
		t.Errorf("%v, %v", all, err)
	}
	if _, err := w.store.SubscriptionPosition("a"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the connection wrote its position after the end: %v", err)
	}
}

// Outstanding events whose account is hidden meanwhile are not sent again.
func TestDurableHidden(t *testing.T) {
	t.Parallel()
	events := byAccount(1, 2, 1, 2)
	w := newDurableWorld(t, durable.Options{}, events...)
	ws := w.follow(t)
	wantEach(t, ws, 1, 2, 3, 4)
	w.close(t, ws)
	w.log.Hide(1, 3)
	ws = w.follow(t)
	wantEach(t, ws, 2, 4)
	w.until(t, "two are left", func(st durable.Status) bool { return st.Outstanding == 2 })
}

// What was pruned comes as a gap, which is sent again until it is acknowledged.
func TestDurableGap(t *testing.T) {
	t.Parallel()
	w := newDurableWorld(t, durable.Options{WindowEvents: 4}, delivertest.Identities(20)...)
	ws := w.follow(t)
	wantEach(t, ws, 1, 2, 3, 4)
	acknowledge(t, ws, 1)
	wantEach(t, ws, 5)
	w.close(t, ws)
	gap := func(from, to uint64) {
		t.Helper()
		_, text, err := ws.ReadMessage()
		if want := fmt.Sprintf(`{"id":%d,"type":"gap","from":%d,"to":%d,"snapshot":"/stream?snapshot=true"}`, from, from, to); string(text) != want || err != nil {
			t.Fatalf("%s, %v, want %s", text, err, want)
		}
	}
	w.log.Prune(4) // of those that are outstanding
	ws = w.follow(t)
	gap(2, 3)
	wantEach(t, ws, 4, 5, 6)
	w.close(t, ws)
	w.log.Prune(11) // and of those that were never sent
	ws = w.follow(t)
	gap(2, 3) // as it was: its acknowledgement may be on its way
	gap(4, 10)
	wantEach(t, ws, 11, 12)
	acknowledge(t, ws, 2, 4) // as events, which were on their way
	acknowledgeGap(t, ws, 2, 3)
	wantEach(t, ws, 13)
	w.close(t, ws)
	w.stop(t)
	w.start(t, durable.Options{WindowEvents: 4})
	ws = w.follow(t)
	gap(4, 10)
	wantEach(t, ws, 11, 12, 13)
	acknowledgeGap(t, ws, 4, 10)
	wantEach(t, ws, 14)
	acknowledge(t, ws, 11, 12, 13, 14)
	wantEach(t, ws, 15, 16, 17, 18)
	acknowledge(t, ws, 15, 16, 17, 18)
	w.until(t, "saved", func(st durable.Status) bool { return st.Outstanding < 4 })
	w.close(t, ws)
}

// A new filter holds from the id that the answer names, and neither loses nor adds an event before
// it, also in the rows on disk.
func TestDurableFilter(t *testing.T) {
	t.Parallel()
	w := newDurableWorld(t, durable.Options{WindowEvents: 7}, delivertest.Identities(1)...)
	ws := w.follow(t)
	wantEach(t, ws, 1)
	acknowledge(t, ws, 1)
	account := func(n int) durable.Wanted {
		return durable.Wanted{Filter: durable.Filter{DIDs: []string{fmt.Sprintf("did:plc:%d", n)}}}
	}
	wanted := func(uint64) bool { return true }
	from, seen := uint64(2), uint64(1)
	for round := range 30 {
		for i := range 40 {
			w.log.Add(delivertest.Identity(i % 3))
		}
		st := w.put(t, account(round%3), false)
		before, next := wanted, st.Next
		wanted = func(id uint64) bool {
			if id < next {
				return before(id)
			}
			return int(id-2)%40%3 == round%3
		}
		if p, err := w.store.SubscriptionPosition("a"); p.Next < next || err != nil {
			t.Fatalf("the filter holds from %d, the position is %+v, %v", next, p, err)
		}
		for id := from; id < from+40; id++ {
			if id > seen && wanted(id) {
				wantEach(t, ws, id)
				acknowledge(t, ws, id)
				seen = id
			}
		}
		from += 40
	}
}

// The definitions and positions are there after a restart, and the metrics have the names.
func TestDurableRestart(t *testing.T) {
	t.Parallel()
	w := newDurableWorld(t, durable.Options{}, delivertest.Identities(3)...)
	full := durable.Filter{Collections: []string{"app.test.*"}, DIDs: []string{"did:plc:1"}, Kinds: []string{"record"},
		Actions: []string{"create"}, Live: new(bool)}
	if _, _, err := w.subs.Put(t.Context(), "b", durable.Wanted{Filter: full, Share: durable.ByDID}); err != nil {
		t.Fatal(err)
	}
	was := w.subs.All()
	w.stop(t)
	w.start(t, durable.Options{})
	is := w.subs.All()
	text := func(v any) string { b, _ := json.Marshal(v); return string(b) }
	if text(was) != text(is) || len(is) != 2 || is[1].Next != 4 || is[0].Lag != 3 || !slices.Equal(is[1].Filter.DIDs, full.DIDs) || is[1].Share != durable.ByDID {
		t.Errorf("%+v became %+v", was, is)
	}
}
