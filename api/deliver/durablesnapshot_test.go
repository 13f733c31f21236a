package deliver_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cistern/api/deliver"
	"cistern/api/deliver/delivertest"
	"cistern/api/durable"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/gorilla/websocket"
)

// newStoreWorld is a durableWorld whose log is that of a store.
func newStoreWorld(t *testing.T, s *store.Store, o durable.Options) *durableWorld {
	t.Helper()
	w := &durableWorld{store: s, stream: deliver.Options{PageEvents: 50}}
	w.start(t, o)
	t.Cleanup(func() { w.stop(t) })
	return w
}

// withSnapshot is a subscription that begins with a snapshot of some collections.
func withSnapshot(collections ...string) durable.Wanted {
	return durable.Wanted{Start: durable.Start{Snapshot: true}, Filter: durable.Filter{Collections: collections}}
}

// wantRecord reads a record of a snapshot, as repository/path=text, and returns its number.
func wantRecord(t *testing.T, ws *websocket.Conn, want string) (number uint64) {
	t.Helper()
	m := delivertest.Next(t, ws)
	if !m.Snapshot || m.Record == nil || m.ID <= store.NumbersFrom {
		t.Fatalf("%+v, want record %s", m, want)
	}
	if got := recordText(&m); got != want {
		t.Fatalf("record %s, want %s", got, want)
	}
	return m.ID
}

func recordText(m *delivertest.Message) string {
	for n := range 30 {
		if storetest.DID(n) == m.Record.DID {
			_, text, _ := strings.Cut(string(m.Record.Record), `:"`)
			return fmt.Sprintf("%d/%s/%s=%s", n, m.Record.Collection, m.Record.Rkey, strings.TrimSuffix(text, `"}`))
		}
	}
	return m.Record.DID
}

// wantEnd reads the end of a snapshot.
func wantEnd(t *testing.T, ws *websocket.Conn, number, next uint64) {
	t.Helper()
	_, text, err := ws.ReadMessage()
	if want := fmt.Sprintf(`{"id":%d,"type":"snapshot_end","next":%d}`, number, next); string(text) != want || err != nil {
		t.Fatalf("%s, %v, want %s", text, err, want)
	}
}

// A subscription that begins with a snapshot gets all current records, then the end, and then the
// log, each once what is before it is acknowledged.
func TestDurableSnapshot(t *testing.T) {
	t.Parallel()
	s := heldStore(t)
	w := newStoreWorld(t, s, durable.Options{})
	head := s.Head()
	st := w.put(t, withSnapshot("app.test.a"), true)
	if st.Next != head+1 || st.Snapshot == nil || st.Snapshot.Records != 0 {
		t.Errorf("%+v, %+v", st, st.Snapshot)
	}
	writeRecord(t, s, 1, "app.test.a/2", "new") // behind the head, and may come twice
	ws := w.follow(t)
	_, text, err := ws.ReadMessage()
	m, perr := delivertest.Parse(text)
	want := fmt.Sprintf(`{"id":%d,"snapshot":true,"type":"record","record":{"live":false,"did":"%s",`, m.ID, storetest.DID(1))
	if !strings.HasPrefix(string(text), want) || m.ID <= store.NumbersFrom || recordText(&m) != "1/app.test.a/1=one" || err != nil || perr != nil {
		t.Fatalf("%s, %v, %v, want %s", text, err, perr, want)
	}
	first := m.ID
	if n := wantRecord(t, ws, "1/app.test.a/2=new"); n != first+1 {
		t.Errorf("number %d after %d", n, first)
	}
	wantRecord(t, ws, "2/app.test.a/1=three")
	st = w.status(t)
	if st.Outstanding != 3 || st.Next != head+1 || st.Lag == 0 || st.Snapshot == nil || st.Snapshot.Records != 3 || !st.Snapshot.Read ||
		st.Snapshot.DID != storetest.DID(2) {
		t.Errorf("%+v, %+v", st, st.Snapshot)
	}
	acknowledge(t, ws, first+2, first+1, first)
	wantEnd(t, ws, first+3, head+1)
	if st := w.status(t); st.Outstanding != 1 || st.Next != head+1 || st.Snapshot == nil {
		t.Errorf("%+v, %+v", st, st.Snapshot)
	}
	acknowledge(t, ws, first+3)
	if m := delivertest.Next(t, ws); m.ID != head+1 || m.Snapshot || m.Record == nil || recordText(&m) != "1/app.test.a/2=new" {
		t.Errorf("%+v", m)
	}
	acknowledge(t, ws, head+1)
	w.until(t, "nothing is left", func(st durable.Status) bool { return st.Outstanding == 0 && st.Lag == 0 && st.Snapshot == nil })
}

// What is not acknowledged of a snapshot comes again, also after a restart, as it is then: changed,
// or not at all if it is gone or hidden. What is acknowledged does not come again.
func TestDurableSnapshotAgain(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	all := storetest.Records{}
	for i := range 8 {
		all[fmt.Sprint("app.test.a/", i)] = storetest.Text("old")
	}
	for n := 1; n <= 3; n++ {
		holdRecords(t, s, n, all)
	}
	w := newStoreWorld(t, s, durable.Options{WindowEvents: 12})
	head := w.put(t, withSnapshot("app.test.a"), true).Next - 1
	ws := w.follow(t)
	first := wantRecord(t, ws, "1/app.test.a/0=old")
	for i := 1; i < 12; i++ {
		wantRecord(t, ws, fmt.Sprintf("%d/app.test.a/%d=old", 1+i/8, i%8))
	}
	acknowledge(t, ws, first, first+2, first+7)
	wantRecord(t, ws, "2/app.test.a/4=old") // as there is room
	wantRecord(t, ws, "2/app.test.a/5=old")
	wantRecord(t, ws, "2/app.test.a/6=old")
	w.close(t, ws)
	w.stop(t)
	w.start(t, durable.Options{WindowEvents: 12})
	writeRecord(t, s, 1, "app.test.a/3", "new")
	writeRecord(t, s, 1, "app.test.a/4", "")
	change(t, s, 2, func(b *store.Batch, r *store.Repo) error {
		b.Hide(r, store.StatusDeactivated, store.OriginHost, store.Retry{})
		return nil
	})
	ws = w.follow(t)
	if n := wantRecord(t, ws, "1/app.test.a/1=old"); n != first+1 {
		t.Errorf("number %d became %d", first+1, n)
	}
	if n := wantRecord(t, ws, "1/app.test.a/3=new"); n != first+3 {
		t.Errorf("number %d became %d", first+3, n)
	}
	wantRecord(t, ws, "1/app.test.a/5=old")
	wantRecord(t, ws, "1/app.test.a/6=old")
	later := wantRecord(t, ws, "3/app.test.a/0=old")
	if later <= first+14 {
		t.Errorf("number %d is given again", later)
	}
	for i := 1; i < 8; i++ {
		wantRecord(t, ws, fmt.Sprintf("3/app.test.a/%d=old", i))
	}
	w.until(t, "those that are gone are settled", func(st durable.Status) bool { return st.Outstanding == 12 })
	acknowledge(t, ws, first+1, first+3, first+5, first+6)
	for i := range uint64(8) {
		acknowledge(t, ws, later+i)
	}
	wantEnd(t, ws, later+8, head+1)
	w.close(t, ws)
	w.stop(t)
	w.start(t, durable.Options{WindowEvents: 12})
	ws = w.follow(t)
	wantEnd(t, ws, later+8, head+1)
	acknowledge(t, ws, later+8)
	wantIDsFrom(t, ws, head+1, 3)
}

// wantIDsFrom reads events with consecutive ids.
func wantIDsFrom(t *testing.T, ws *websocket.Conn, from uint64, n int) {
	t.Helper()
	delivertest.WantIDs(t, ws, from, from+uint64(n)-1)
}

// Acknowledgements that are late settle nothing else: no number is that of an event, and none is
// given twice.
func TestDurableSnapshotStaleAcks(t *testing.T) {
	t.Parallel()
	s := heldStore(t)
	w := newStoreWorld(t, s, durable.Options{})
	var stale []uint64
	for round := range 4 {
		if round == 0 {
			w.put(t, withSnapshot("app.test.*"), true)
		} else if _, err := w.subs.Replay(t.Context(), "a", durable.Start{Snapshot: true}); err != nil {
			t.Fatal(err)
		}
		ws := w.follow(t)
		var fresh []uint64
		for i := range 3 + round {
			m := delivertest.Next(t, ws)
			if !m.Snapshot {
				t.Fatalf("round %d, record %d: %+v", round, i, m)
			}
			fresh = append(fresh, m.ID)
		}
		left := func(n int) {
			t.Helper()
			w.until(t, "what is not acknowledged is left", func(st durable.Status) bool { return st.Outstanding <= n })
			if st := w.status(t); st.Outstanding != n {
				t.Errorf("round %d: %d are outstanding, want %d", round, st.Outstanding, n)
			}
		}
		acknowledge(t, ws, stale...)
		acknowledge(t, ws, fresh[0])
		left(2 + round)
		acknowledge(t, ws, fresh[1:]...)
		end := delivertest.Next(t, ws)
		acknowledge(t, ws, append(stale, fresh...)...)
		acknowledge(t, ws, end.ID)
		writeRecord(t, s, 1, fmt.Sprint("app.test.c/", round), "event")
		writeRecord(t, s, 1, fmt.Sprint("app.test.none/", round), "event")
		writeRecord(t, s, 1, fmt.Sprint("app.test.none/", round), "")
		one, two, three := delivertest.Next(t, ws), delivertest.Next(t, ws), delivertest.Next(t, ws)
		stale = append(append(stale, fresh...), end.ID)
		acknowledge(t, ws, stale...)
		acknowledge(t, ws, two.ID)
		left(2)
		acknowledge(t, ws, one.ID, three.ID)
		stale = append(stale, one.ID, two.ID, three.ID)
		left(0)
		w.close(t, ws)
		if round == 1 {
			w.stop(t)
			w.start(t, durable.Options{})
		}
	}
}

// A new filter holds for the records that are not outstanding yet. What the former one left out is
// not sent: the order of the snapshot stays.
func TestDurableSnapshotFilter(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, store.Options{})
	for n := 1; n <= 4; n++ {
		holdRecords(t, s, n, storetest.Records{"app.test.a/1": storetest.Text("x"), "app.test.b/1": storetest.Text("x"), "app.test.c/1": storetest.Text("x")})
	}
	w := newStoreWorld(t, s, durable.Options{WindowEvents: 1})
	w.put(t, withSnapshot("app.test.a", "app.test.b"), true)
	step := func(ws *websocket.Conn, want string) {
		t.Helper()
		acknowledge(t, ws, wantRecord(t, ws, want))
	}
	ws := w.follow(t)
	step(ws, "1/app.test.a/1=x")
	first := wantRecord(t, ws, "2/app.test.a/1=x") // is outstanding
	f := durable.Filter{DIDs: []string{storetest.DID(1), storetest.DID(4)}}
	if st := w.put(t, durable.Wanted{Filter: f}, false); st.Snapshot == nil || st.Next != s.Head()+1 {
		t.Errorf("%+v", st)
	}
	w.close(t, ws)
	w.stop(t)
	w.start(t, durable.Options{WindowEvents: 1})
	ws = w.follow(t)
	if n := wantRecord(t, ws, "2/app.test.a/1=x"); n != first {
		t.Errorf("number %d became %d", first, n)
	}
	acknowledge(t, ws, first)
	step(ws, "4/app.test.a/1=x") // and not the third
	first = wantRecord(t, ws, "1/app.test.b/1=x")
	w.put(t, durable.Wanted{Filter: durable.Filter{Collections: []string{"app.test.b", "app.test.c"}}}, false)
	acknowledge(t, ws, first)
	step(ws, "2/app.test.b/1=x")
	step(ws, "3/app.test.b/1=x")
	step(ws, "4/app.test.b/1=x")
	head := s.Head()
	end := delivertest.Next(t, ws)
	wantNext := func(m delivertest.Message) {
		t.Helper()
		if m.Type != "snapshot_end" || m.Next != head+1 {
			t.Fatalf("%+v", m)
		}
		acknowledge(t, ws, m.ID)
	}
	wantNext(end)
	writeRecord(t, s, 1, "app.test.a/1", "y")
	writeRecord(t, s, 1, "app.test.c/1", "y")
	wantEach(t, ws, head+2)
	// The next snapshot is of the new filter.
	head = s.Head()
	if _, err := w.subs.Replay(t.Context(), "a", durable.Start{Snapshot: true}); err != nil {
		t.Fatal(err)
	}
	ws = w.follow(t)
	for _, c := range []string{"b/1=x", "c/1="} {
		for n := 1; n <= 4; n++ {
			text := c
			if c == "c/1=" {
				text += []string{"y", "x", "x", "x"}[n-1]
			}
			step(ws, fmt.Sprintf("%d/app.test.%s", n, text))
		}
	}
	wantNext(delivertest.Next(t, ws))
}

// If the log loses the head of a snapshot, a gap says so, and the snapshot goes on.
func TestDurableSnapshotGap(t *testing.T) {
	t.Parallel()
	var now atomic.Int64
	now.Store(1_700_000_000)
	s := storetest.Open(t, store.Options{Retention: time.Second, SubscriptionRetention: 2 * time.Second,
		Now: func() time.Time { return time.Unix(now.Load(), 0) }})
	holdRecords(t, s, 1, storetest.Records{"app.test.a/1": storetest.Text("one"), "app.test.a/2": storetest.Text("two")})
	w := newStoreWorld(t, s, durable.Options{WindowEvents: 1})
	head := w.put(t, withSnapshot("app.test.a"), true).Next - 1
	ws := w.follow(t)
	first := wantRecord(t, ws, "1/app.test.a/1=one")
	w.close(t, ws)
	for s.Tail() <= head+1 {
		writeRecord(t, s, 1, "app.test.b/1", fmt.Sprint(now.Add(60)))
		pruneOnce(t, s)
	}
	tail := s.Tail()
	ws = w.follow(t)
	acknowledge(t, ws, wantRecord(t, ws, "1/app.test.a/1=one"))
	if _, text, err := ws.ReadMessage(); !strings.HasPrefix(string(text), fmt.Sprintf(`{"id":%d,"type":"gap","from":%d,"to":%d,`, head+1, head+1, tail-1)) {
		t.Fatalf("%s, %v", text, err)
	}
	acknowledgeGap(t, ws, head+1, tail-1)
	second := wantRecord(t, ws, "1/app.test.a/2=two")
	acknowledge(t, ws, second)
	wantEnd(t, ws, second+1, tail)
	if second != first+1 {
		t.Errorf("number %d after %d", second, first)
	}
}

// Where a snapshot cannot begin is refused by name.
func TestDurableSnapshotRefusals(t *testing.T) {
	t.Parallel()
	w := newStoreWorld(t, heldStore(t), durable.Options{})
	live := true
	for _, f := range []durable.Filter{{Kinds: []string{"account"}}, {Actions: []string{"update"}}, {Live: &live}} {
		_, _, err := w.subs.Put(t.Context(), "a", durable.Wanted{Start: durable.Start{Snapshot: true}, Filter: f})
		if err == nil || !strings.Contains(err.Error(), "start snapshot: the filter") {
			t.Errorf("%+v: %v", f, err)
		}
	}
	if _, _, err := w.subs.Put(t.Context(), durable.Tap, withSnapshot()); err == nil || !strings.Contains(err.Error(), "tap") {
		t.Error(err)
	}
	if _, _, err := w.subs.Put(t.Context(), durable.Tap, durable.Wanted{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.subs.Replay(t.Context(), durable.Tap, durable.Start{Snapshot: true}); err == nil || !strings.Contains(err.Error(), "tap") {
		t.Error(err)
	}
}
