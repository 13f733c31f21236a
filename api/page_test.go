package api_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/api"
	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/fxamacker/cbor/v2"
)

// fakeLog is a log in memory.
type fakeLog struct {
	mu      sync.Mutex
	events  []store.Event // id i+1
	tail    uint64
	changed chan struct{}
	reads   int
	fail    error
	looked  func() // called once, after the first call of Head
}

func newFakeLog(events ...store.Event) *fakeLog {
	l := &fakeLog{tail: 1, changed: make(chan struct{})}
	l.add(events...)
	return l
}

func (l *fakeLog) add(events ...store.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, ev := range events {
		ev.ID = uint64(len(l.events) + 1)
		l.events = append(l.events, ev)
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *fakeLog) Head() uint64 {
	l.mu.Lock()
	head, looked := uint64(len(l.events)), l.looked
	l.looked = nil
	l.mu.Unlock()
	if looked != nil {
		looked()
	}
	return head
}

func (l *fakeLog) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

func (l *fakeLog) ReadLog(ctx context.Context, cursor uint64, maxEvents int, fn func(*store.Event) error) (uint64, error) {
	l.mu.Lock()
	events, tail, fail := l.events, l.tail, l.fail
	if maxEvents > 0 {
		l.reads++
	}
	l.mu.Unlock()
	if cursor == 0 {
		cursor = tail
	}
	switch {
	case fail != nil && maxEvents > 0:
		return cursor, fail
	case cursor > uint64(len(events))+1:
		return cursor, store.ErrFutureCursor
	case cursor < tail:
		return cursor, store.ErrOutdatedCursor
	}
	for ; maxEvents > 0 && cursor <= uint64(len(events)); maxEvents-- {
		ev := events[cursor-1]
		cursor++
		if ev.Kind == 0 { // hidden
			continue
		}
		if err := fn(&ev); err != nil {
			return cursor, err
		}
	}
	return cursor, ctx.Err()
}

// posts makes n record events that look like a backfill of posts, 40 to a repository.
func posts(n int) []store.Event {
	events := make([]store.Event, n)
	for i := range events {
		text := strings.Repeat(fmt.Sprintf("post %d says hello ", i), 1+i%8)
		record, err := cbor.Marshal(map[string]any{
			"text": text[:min(len(text), 120)], "$type": "app.bsky.feed.post", "langs": []string{"en"},
			"createdAt": "2026-01-02T03:04:05.678Z",
		})
		if err != nil {
			panic(err)
		}
		events[i] = store.Event{
			Kind: store.KindRecord, DID: fmt.Sprintf("did:plc:%024d", i/40), Rev: "3kabcdefghijk", Action: store.Create,
			Collection: []byte("app.bsky.feed.post"), Rkey: fmt.Appendf(nil, "3k%011d", i), CID: repo.HashCID(record), Record: record,
		}
	}
	return events
}

func BenchmarkPage(b *testing.B) {
	log := newFakeLog(posts(100_000)...)
	b.ReportAllocs()
	events, size := 0, 0
	start := cpuTime(b)
	for b.Loop() {
		pager := api.NewPager(log, api.Options{})
		for cursor := uint64(1); cursor <= log.Head(); {
			frames, next, err := pager.Read(b.Context(), cursor)
			if err != nil {
				b.Fatal(err)
			}
			size += len(frames)
			cursor = next
		}
		events += int(log.Head())
	}
	b.ReportMetric(float64((cpuTime(b)-start).Nanoseconds())/float64(events), "cpu-ns/event")
	b.ReportMetric(float64(size)/float64(events), "B/event")
}

// liveStore holds repositories of a post each. commit writes one more post to the i-th of them.
func liveStore(b *testing.B, repos int) (s *store.Store, commit func(i int) (wait func() error)) {
	s = storetest.Open(b, store.Options{})
	post := posts(1)[0].Record
	for i := range repos {
		hold(b, s, i, storetest.Records{"app.bsky.feed.post/first": post})
	}
	if err := s.FlushImports(); err != nil {
		b.Fatal(err)
	}
	commits := 0
	return s, func(i int) (wait func() error) {
		commits++
		r, err := s.Repo(storetest.DID(i))
		if err != nil {
			b.Fatal(err)
		}
		batch := s.NewBatch()
		r.Rev = storetest.Rev(repos + commits)
		r.Commit = storetest.Commit(r.DID, r.Rev, r.Data)
		op := store.Op{Path: fmt.Appendf(nil, "app.bsky.feed.post/%d", commits), CID: repo.HashCID(post), Record: post}
		if err := batch.Apply(&r, true, r.Rev, []store.Op{op}); err != nil {
			b.Fatal(err)
		}
		batch.PutRepo(&r)
		if wait, err = batch.Commit(); err != nil {
			b.Fatal(err)
		}
		return wait
	}
}

// BenchmarkTail reads pages of a few events of live commits each, as subscribers at the head do.
func BenchmarkTail(b *testing.B) {
	const repos, commits = 1000, 20
	s, commit := liveStore(b, repos)
	first := s.Head() + 1
	for i := range repos * commits {
		if wait := commit(i % repos); i == repos*commits-1 {
			if err := wait(); err != nil {
				b.Fatal(err)
			}
		}
	}
	for _, n := range []int{1, 4, 16} {
		b.Run(fmt.Sprintf("events=%d", n), func(b *testing.B) {
			pager := api.NewPager(s, api.Options{PageEvents: n})
			b.ReportAllocs()
			events, cursor, start := 0, first, cpuTime(b)
			for b.Loop() {
				_, next, err := pager.Read(b.Context(), cursor)
				if err != nil {
					b.Fatal(err)
				}
				events += int(next - cursor)
				if cursor = next; cursor > s.Head() {
					cursor = first
					pager = api.NewPager(s, api.Options{PageEvents: n})
				}
			}
			b.ReportMetric(float64((cpuTime(b)-start).Nanoseconds())/float64(events), "cpu-ns/event")
		})
	}
}

// BenchmarkLatency is the time from an event being durable until a subscriber has it.
func BenchmarkLatency(b *testing.B) {
	s, commit := liveStore(b, 1000)
	srv := httptest.NewServer(api.StreamHandler(s, api.Options{}))
	defer srv.Close()
	conn := dialStream(b, srv, "")
	buf := make([]byte, 64<<10)
	var took time.Duration
	i := 0
	for b.Loop() {
		wait := commit(i % 1000)
		if err := wait(); err != nil {
			b.Fatal(err)
		}
		durable := time.Now()
		if _, err := conn.Read(buf); err != nil {
			b.Fatal(err)
		}
		took += time.Since(durable)
		i++
	}
	b.ReportMetric(float64(took.Microseconds())/float64(i), "µs/event")
}

// BenchmarkStream sends over loopback TCP to a reader that only counts bytes, from a log in
// memory and from a store. CPU time of the reader's copy is in it.
func BenchmarkStream(b *testing.B) {
	b.Run("log=fake", func(b *testing.B) { benchmarkStream(b, newFakeLog(posts(200_000)...)) })
	b.Run("log=store", func(b *testing.B) { benchmarkStream(b, postStore(b, 200_000)) })
}

// postStore holds posts in repositories of 400, which is about the mean of the rig's std world.
func postStore(b *testing.B, n int) *store.Store {
	s := storetest.Open(b, store.Options{})
	for i, events := 0, posts(n); len(events) > 0; i++ {
		m := storetest.Records{}
		for _, ev := range events[:min(400, len(events))] {
			m[string(ev.Collection)+"/"+string(ev.Rkey)] = ev.Record
		}
		events = events[min(400, len(events)):]
		hold(b, s, i, m)
	}
	if err := s.FlushImports(); err != nil {
		b.Fatal(err)
	}
	return s
}

// hold gives repository i a first copy, which is visible after FlushImports.
func hold(b *testing.B, s *store.Store, i int, m storetest.Records) {
	r, err := s.RepoOrNew(storetest.DID(i))
	if err != nil {
		b.Fatal(err)
	}
	r.State, r.Tracked = store.StatePending, store.ByOperator
	batch := s.NewBatch()
	batch.PutRepo(&r)
	if err := batch.CommitSync(); err != nil {
		b.Fatal(err)
	}
	im := m.Import(r, storetest.Rev(i))
	im.Done = func(_ store.Repo, err error) {
		if err != nil {
			b.Error(err)
		}
	}
	if err := s.Import(b.Context(), im); err != nil {
		b.Fatal(err)
	}
}

func benchmarkStream(b *testing.B, log api.Log) {
	srv := httptest.NewServer(api.StreamHandler(log, api.Options{}))
	defer srv.Close()
	size := 0
	pager := api.NewPager(log, api.Options{})
	for cursor := uint64(1); cursor <= log.Head(); {
		frames, next, err := pager.Read(b.Context(), cursor)
		if err != nil {
			b.Fatal(err)
		}
		size += len(frames)
		cursor = next
	}
	events := 0
	b.ReportAllocs()
	buf := make([]byte, 1<<20)
	start := cpuTime(b)
	for b.Loop() {
		conn := dialStream(b, srv, "?cursor=0")
		for n := 0; n < size; {
			k, err := conn.Read(buf)
			if err != nil {
				b.Fatal(err)
			}
			n += k
		}
		if err := conn.Close(); err != nil {
			b.Fatal(err)
		}
		events += int(log.Head())
	}
	b.ReportMetric(float64((cpuTime(b)-start).Nanoseconds())/float64(events), "cpu-ns/event")
	b.ReportMetric(float64(size)/float64(log.Head()), "B/event")
}

// dialStream connects and gives the connection behind the handshake.
func dialStream(t testing.TB, srv *httptest.Server, query string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_, err = fmt.Fprintf(conn, "GET /stream%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", query)
	if err != nil {
		t.Fatal(err)
	}
	var head []byte
	for one := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); head = append(head, one[0]) {
		if _, err := conn.Read(one); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) {
		t.Fatalf("handshake: %s", head)
	}
	return conn
}
