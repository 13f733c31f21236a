package deliver_test

import (
	"context"
	"encoding/base64"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cistern/api/deliver"
	"cistern/api/deliver/delivertest"
	"cistern/filter"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"
)

// snapshots is a log in memory with records. read is ReadRecords.
type snapshots struct {
	*delivertest.Log
	read func(ctx context.Context, p *store.Pass, fn func(*store.Event, store.RecordPosition) bool) (ended bool, err error)
}

func (s *snapshots) BeginSnapshot(f *filter.Events) *store.Pass {
	return store.NewPass(s.Head(), 5, f)
}

func (s *snapshots) ReadRecords(ctx context.Context, p *store.Pass, at store.RecordPosition, _ int, fn func(*store.Event, store.RecordPosition) bool) (store.RecordPosition, bool, error) {
	ended, err := s.read(ctx, p, fn)
	return at, ended, err
}

func (s *snapshots) ReadCurrent(context.Context, []store.RecordName, func(int, *store.Event) bool) error {
	return nil
}

// heldStore holds two repositories.
func heldStore(t *testing.T) *store.Store {
	s := storetest.Open(t, store.Options{})
	holdRecords(t, s, 1, storetest.Records{"app.test.a/1": storetest.Text("one"), "app.test.b/1": storetest.Text("two")})
	holdRecords(t, s, 2, storetest.Records{"app.test.a/1": storetest.Text("three"), "no path": storetest.Text("four")})
	return s
}

// TestSnapshotFrames: all records, then the marker, then the log, and a token in each frame.
func TestSnapshotFrames(t *testing.T) {
	t.Parallel()
	s := heldStore(t)
	srv := serveStore(t, s, deliver.Options{})
	ws := delivertest.Follow(t, srv.URL, "?snapshot=true&collections=app.test.a")
	_, text, err := ws.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	before, after, _ := strings.Cut(string(text), `"token":"`)
	token, after, _ := strings.Cut(after, `"`)
	rev := storetest.Rev(1)
	if want := `,"type":"record","record":{"live":false,"did":"` + storetest.DID(1) + `","rev":"` + rev + `","collection":"app.test.a","rkey":"1","action":"create","record":{"text":"one"},"cid":"`; before != `{"snapshot":true,` || !strings.HasPrefix(after, want) {
		t.Errorf("frame %s", text)
	}
	second, end := delivertest.Next(t, ws), delivertest.Next(t, ws)
	if !second.Snapshot || second.Record == nil || second.Record.DID != storetest.DID(2) || second.ID != 0 {
		t.Errorf("second record %+v", second)
	}
	if end.Type != "snapshot_end" || end.ID != s.Head() || end.Snapshot || end.Token == "" {
		t.Errorf("marker %+v", end)
	}
	writeRecord(t, s, 1, "app.test.a/1", "new")
	live := delivertest.Next(t, ws)
	if live.ID != end.ID+1 || live.Record == nil || live.Record.Action != "update" || live.Token == "" {
		t.Errorf("event after the snapshot %+v", live)
	}
	writeRecord(t, s, 2, "app.test.a/1", "new")
	for _, c := range []struct {
		token string
		want  []uint64 // 0: a record of the snapshot
	}{
		{token, []uint64{0, end.ID, live.ID, live.ID + 1}},
		{second.Token, []uint64{end.ID, live.ID, live.ID + 1}},
		{end.Token, []uint64{live.ID, live.ID + 1}},
		{live.Token, []uint64{live.ID + 1}},
	} {
		ws := delivertest.Follow(t, srv.URL, "?snapshot=true&collections=app.test.a&include=cbor&resume="+c.token)
		for i, id := range c.want {
			if m := delivertest.Next(t, ws); m.ID != id || m.Snapshot != (id == 0) || m.Token == "" {
				t.Errorf("resumed at %s: frame %d is %+v, want id %d", c.token, i, m, id)
			}
		}
	}
}

// TestSnapshotRefusals: what a snapshot cannot begin with is refused before the handshake, with the
// parameter that is wrong.
func TestSnapshotRefusals(t *testing.T) {
	t.Parallel()
	s := heldStore(t)
	srv := serveStore(t, s, deliver.Options{})
	ws := delivertest.Follow(t, srv.URL, "?snapshot=true&collections=app.test.a")
	token := delivertest.Next(t, ws).Token
	for _, c := range []struct{ query, names string }{
		{"?snapshot=yes", "snapshot"},
		{"?snapshot=true&snapshot=true", "snapshot"},
		{"?snapshot=true&cursor=0", "cursor"},
		{"?snapshot=true&epoch=epoch1", "epoch"},
		{"?snapshot=true&since=1", "since"},
		{"?snapshot=true&kinds=account", "kinds"},
		{"?snapshot=true&actions=update", "actions"},
		{"?snapshot=true&live=true", "live"},
		{"?resume=", "resume"},
		{"?resume=abc", "resume"},
		{"?resume=" + token[:len(token)/2] + "!", "resume"},
		{"?resume=" + token, "another filter"},                                   // of one collection
		{"?collections=app.test.a,app.test.b&resume=" + token, "another filter"}, // has more that came before
		{"?resume=" + token + "&collections=app.test.a&cursor=1", "cursor"},
	} {
		ws, res, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(srv.URL, "http")+"/stream"+c.query, nil)
		if err == nil {
			_ = ws.Close()
			t.Errorf("%s: no error", c.query)
			continue
		}
		body := make([]byte, 1000)
		n, _ := res.Body.Read(body)
		if res.StatusCode != http.StatusBadRequest || !strings.Contains(string(body[:n]), c.names) {
			t.Errorf("%s: %d %s", c.query, res.StatusCode, body[:n])
		}
	}
	// Without snapshot=true no snapshot comes.
	delivertest.WantIDs(t, delivertest.Follow(t, serveLog(t, delivertest.NewLog(delivertest.Identities(3)...), deliver.Options{}).URL, "?snapshot=false&cursor=1"), 1, 3)
}

// TestSnapshotOutdated: a snapshot that cannot go on ends with the advice to begin a new one.
func TestSnapshotOutdated(t *testing.T) {
	t.Parallel()
	log := &snapshots{Log: delivertest.NewLog(delivertest.Identities(9)...)}
	log.read = func(_ context.Context, _ *store.Pass, fn func(*store.Event, store.RecordPosition) bool) (bool, error) {
		fn(&delivertest.Posts(1)[0], store.RecordPosition{Ordinal: 1, Path: []byte("app.test.a/1")})
		return false, store.ErrOutdatedCursor
	}
	srv := serveLog(t, log, deliver.Options{})
	other := heldStore(t)
	foreign := serveStore(t, other, deliver.Options{Epoch: "another"})
	ws := delivertest.Follow(t, foreign.URL, "?snapshot=true")
	record := delivertest.Next(t, ws)
	for m := record; m.Type != "snapshot_end"; m = delivertest.Next(t, ws) {
		record = m
	}
	log.Tail = 8
	pruned := "AQAGZXBvY2gxAw" // event 3 of epoch1
	for _, query := range []string{"snapshot=true", "resume=" + record.Token, "resume=" + pruned} {
		ws := delivertest.Follow(t, srv.URL, "?"+query)
		m := delivertest.Next(t, ws)
		if m.Type != "error" || m.Error != "OutdatedCursor" || !strings.Contains(m.Message, "begin a new snapshot") {
			t.Errorf("%s: %+v", query, m)
		}
		delivertest.Ends(t, ws, websocket.ClosePolicyViolation)
	}
}

// TestSnapshotToken: a token that is cut, extended or made up is refused or harmless.
func TestSnapshotToken(t *testing.T) {
	t.Parallel()
	event := "AQAGZXBvY2gxAw"
	if again, err := deliver.ReencodeToken(event); again != event || err != nil {
		t.Errorf("%s became %s, %v", event, again, err)
	}
	if again, err := deliver.ReencodeToken(event + "AA"); err == nil {
		t.Errorf("a token with more behind it became %s", again)
	}
	for _, f := range []filter.EventsConfig{{}, {Collections: []string{"app.test.a"}}, {DIDs: []string{storetest.DID(1)}}} {
		events, err := filter.CompileEvents(f)
		if err != nil {
			t.Fatal(err)
		}
		pass := store.NewPass(1<<40, 77, events)
		at := store.RecordPosition{DID: storetest.DID(1), Ordinal: 12345, Path: []byte("app.test.a/key")}
		text := deliver.RecordToken("epoch1", pass, at)
		if again, err := deliver.ReencodeToken(text); err != nil || again != text {
			t.Errorf("%s became %s, %v", text, again, err)
		}
		raw, err := base64.RawURLEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		for n := range len(raw) - len(at.Path) { // the path is the rest, whatever its length
			if _, err := deliver.ReencodeToken(base64.RawURLEncoding.EncodeToString(raw[:n])); err == nil {
				t.Errorf("%d bytes of %x are a token", n, raw)
			}
		}
	}
}

// FuzzToken: parsing neither fails in any other way than by an error, nor loses anything.
func FuzzToken(f *testing.F) {
	f.Add("AQAGZXBvY2gxAw")
	f.Fuzz(func(t *testing.T, text string) {
		again, err := deliver.ReencodeToken(text)
		if err != nil {
			return
		}
		if third, err := deliver.ReencodeToken(again); err != nil || third != again {
			t.Errorf("%q became %q and then %q, %v", text, again, third, err)
		}
	})
}

// TestSnapshotsLeaveReaders: any number of snapshots that read leaves the log to others, and the
// snapshots of one client leave a place to those of others.
func TestSnapshotsLeaveReaders(t *testing.T) {
	t.Parallel()
	reading := make(chan struct{}, 100)
	log := &snapshots{Log: delivertest.NewLog(delivertest.Identities(5000)...)}
	log.read = func(ctx context.Context, p *store.Pass, _ func(*store.Event, store.RecordPosition) bool) (bool, error) {
		if p.Order == store.ByDID {
			return true, nil
		}
		reading <- struct{}{}
		<-ctx.Done()
		return false, ctx.Err()
	}
	srv := serveLog(t, log, deliver.Options{PageEvents: 10, SharedBytes: 1})
	for range 30 {
		delivertest.Follow(t, srv.URL, "?snapshot=true")
	}
	<-reading
	d := websocket.Dialer{NetDialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(two)}}).DialContext}
	other, _, err := d.DialContext(t.Context(), "ws"+strings.TrimPrefix(srv.URL, "http")+"/stream?snapshot=true&dids="+storetest.DID(1), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })
	_ = other.SetReadDeadline(time.Now().Add(20 * time.Second))
	if m := delivertest.Next(t, other); m.Type != "snapshot_end" {
		t.Errorf("%+v", m)
	}
	var g errgroup.Group
	for i := range 4 {
		ws := delivertest.Follow(t, srv.URL, "?cursor=1")
		g.Go(func() error { return longIDs(ws, 1, 5000-i) })
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// TestSnapshotAttends: during a snapshot pings are answered, and an update waits for its end.
func TestSnapshotAttends(t *testing.T) {
	t.Parallel()
	var open atomic.Bool
	log := &snapshots{Log: delivertest.NewLog(delivertest.Identities(3)...)}
	log.read = func(context.Context, *store.Pass, func(*store.Event, store.RecordPosition) bool) (bool, error) {
		time.Sleep(time.Millisecond)
		return open.Load(), nil
	}
	ws := delivertest.Follow(t, serveLog(t, log, deliver.Options{}).URL, "?snapshot=true")
	if err := ws.WriteMessage(websocket.TextMessage, []byte(`{"type":"update","kinds":["identity"]}`)); err != nil {
		t.Fatal(err)
	}
	// The pong says that the update was read, too.
	ws.SetPongHandler(func(string) error { open.Store(true); return nil })
	if err := ws.WriteControl(websocket.PingMessage, []byte("hello"), time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if m := delivertest.Next(t, ws); m.Type != "snapshot_end" || m.ID != 3 {
		t.Errorf("first message %+v", m)
	}
	if m := delivertest.Next(t, ws); m.Type != "updated" || m.ID != 4 {
		t.Errorf("second message %+v", m)
	}
}

// TestSnapshotHoldsLongPages: long pages of snapshots that are not read count among all long pages.
func TestSnapshotHoldsLongPages(t *testing.T) {
	t.Parallel()
	events := delivertest.Posts(1)
	log := &snapshots{Log: delivertest.NewLog()}
	log.read = func(_ context.Context, _ *store.Pass, fn func(*store.Event, store.RecordPosition) bool) (bool, error) {
		ev := events[0]
		ev.Record = delivertest.BlownUp(70_000)
		fn(&ev, store.RecordPosition{Ordinal: 1, Path: []byte("app.test.a/1")})
		return false, nil
	}
	handler, uses := deliver.StreamHandlerHolding(log, deliver.Options{WriteTimeout: time.Minute, PageBytes: 1000}, 1<<20)
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	delivertest.Follow(t, srv.URL, "?snapshot=true")
	lasts(t, func() bool { return uses() == 1 }, nil)
	delivertest.Follow(t, srv.URL, "?snapshot=true")
	lasts(t, func() bool { return uses() == 2 }, nil)
}

// TestSnapshotPageBytes: a page of a snapshot ends with the record that makes it full, by its bytes
// or by those of its JSON.
func TestSnapshotPageBytes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		record []byte
		most   int
		want   int // records of a page
	}{
		{make([]byte, 5000), 1, 1},
		{make([]byte, 5000), 6000, 2},
		{make([]byte, 5000), 15_000, 3},
		{delivertest.BlownUp(70_000), 400_000, 1}, // 980 KB of JSON
		{delivertest.BlownUp(70_000), 800_000, 2},
	} {
		ev, records := delivertest.Posts(1)[0], make(chan int, 1)
		ev.Record = c.record
		log := &snapshots{Log: delivertest.NewLog()}
		log.read = func(_ context.Context, _ *store.Pass, fn func(*store.Event, store.RecordPosition) bool) (bool, error) {
			n := 1
			for n < 50 && fn(&ev, store.RecordPosition{Ordinal: 1, Path: []byte("app.test.a/1")}) {
				n++
			}
			records <- n
			return true, nil
		}
		delivertest.Follow(t, serveLog(t, log, deliver.Options{PageBytes: c.most}).URL, "?snapshot=true")
		if n := <-records; n != c.want {
			t.Errorf("pages of %d bytes: %d records of %d bytes, want %d", c.most, n, len(c.record), c.want)
		}
	}
}

// BenchmarkSnapshot sends all records of a store over loopback TCP, as BenchmarkStream sends the log
// that has them.
func BenchmarkSnapshot(b *testing.B) {
	const records = 200_000
	srv := serveStore(b, postStore(b, store.Options{}, records), deliver.Options{})
	start, size := cpuTime(b), 0
	for b.Loop() {
		ws := delivertest.Follow(b, srv.URL, "?snapshot=true")
		for n := 0; n <= records; n++ { // and the marker
			_, text, err := ws.ReadMessage()
			if err != nil {
				b.Fatal(err)
			}
			size += len(text)
		}
		_ = ws.Close()
	}
	b.ReportMetric(float64((cpuTime(b)-start).Nanoseconds())/float64(b.N*records), "cpu-ns/record")
	b.ReportMetric(float64(size)/float64(b.N*records), "B/record")
}
