package deliver_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"cistern/api/deliver"
	"cistern/api/deliver/delivertest"
	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"
)

func BenchmarkPage(b *testing.B) {
	log := delivertest.NewLog(delivertest.Posts(100_000)...)
	b.ReportAllocs()
	events, size := 0, 0
	start := cpuTime(b)
	for b.Loop() {
		pager := deliver.NewPager(log, deliver.Options{})
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

// liveStore holds repositories of a post each. commit writes one more record to the i-th of them.
func liveStore(
	b testing.TB, o store.Options, repos int,
) (s *store.Store, commit func(i int, collection string) (wait func() error)) {
	s = storetest.Open(b, o)
	post := delivertest.Posts(1)[0].Record
	for i := range repos {
		hold(b, s, i, storetest.Records{"app.bsky.feed.post/first": post})
	}
	if err := s.FlushImports(); err != nil {
		b.Fatal(err)
	}
	commits := 0
	return s, func(i int, collection string) (wait func() error) {
		commits++
		r, err := s.Repo(storetest.DID(i))
		if err != nil {
			b.Fatal(err)
		}
		batch := s.NewBatch()
		r.Rev = storetest.Rev(repos + commits)
		r.Commit = storetest.Commit(r.DID, r.Rev, r.Data)
		op := store.Op{Path: fmt.Appendf(nil, "%s/%d", collection, commits), CID: repo.HashCID(post), Record: post}
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
	s, commit := liveStore(b, store.Options{}, repos)
	first := s.Head() + 1
	for i := range repos * commits {
		if wait := commit(i%repos, "app.bsky.feed.post"); i == repos*commits-1 {
			if err := wait(); err != nil {
				b.Fatal(err)
			}
		}
	}
	for _, n := range []int{1, 4, 16} {
		b.Run(fmt.Sprintf("events=%d", n), func(b *testing.B) {
			pager := deliver.NewPager(s, deliver.Options{PageEvents: n})
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
					pager = deliver.NewPager(s, deliver.Options{PageEvents: n})
				}
			}
			b.ReportMetric(float64((cpuTime(b)-start).Nanoseconds())/float64(events), "cpu-ns/event")
		})
	}
}

// BenchmarkLatency is the time from an event being durable until a subscriber has it.
func BenchmarkLatency(b *testing.B) {
	s, commit := liveStore(b, store.Options{}, 1000)
	srv := httptest.NewServer(deliver.StreamHandler(s, deliver.Options{}))
	defer srv.Close()
	conn := dialStream(b, srv, "")
	buf := make([]byte, 64<<10)
	var took time.Duration
	i := 0
	for b.Loop() {
		wait := commit(i%1000, "app.bsky.feed.post")
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
	b.Run("log=fake", func(b *testing.B) { benchmarkStream(b, delivertest.NewLog(delivertest.Posts(200_000)...)) })
	b.Run("log=store", func(b *testing.B) { benchmarkStream(b, postStore(b, store.Options{}, 200_000)) })
}

// postStore holds posts in repositories of 400, which is about the mean of the rig's std world.
func postStore(b testing.TB, o store.Options, n int) *store.Store {
	s := storetest.Open(b, o)
	for i, events := 0, delivertest.Posts(n); len(events) > 0; i++ {
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
func hold(b testing.TB, s *store.Store, i int, m storetest.Records) {
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

func benchmarkStream(b *testing.B, log deliver.Log) {
	srv := httptest.NewServer(deliver.StreamHandler(log, deliver.Options{}))
	defer srv.Close()
	size := 0
	pager := deliver.NewPager(log, deliver.Options{})
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

// An event is encoded once, whichever streams want it (invariant 3).
func TestEncodedOnce(t *testing.T) {
	t.Parallel()
	got := deliver.Encode(delivertest.Posts(4), []int32{1, 3}, []int32{1}, []int32{0, 1, 2, 3}, []int32{0, 1, 2, 3})
	if got[0] == 0 || got[1] != 0 || got[2] == 0 || got[3] != 0 {
		t.Errorf("the calls encoded %d bytes", got)
	}
}

// TestPartOfLongPage: a subscriber that sends a short part of a long page keeps only the part in
// memory, however long it does not read (invariant 7).
func TestPartOfLongPage(t *testing.T) {
	t.Parallel()
	events := delivertest.Posts(3)
	events[1].Record = delivertest.BlownUp(70_000)
	for i := range events {
		events[i].ID = uint64(i + 1)
	}
	for place, want := range []bool{false, true, false} {
		frame, inPage := deliver.Pinned(events, int32(place))
		if id := fmt.Sprintf(`"id":%d,`, events[place].ID); !strings.Contains(string(frame), id) {
			t.Errorf("frame %.60q, want %s", frame, id)
		}
		if inPage != want {
			t.Errorf("event %d of %d bytes is in the memory of the page: %t", place, len(frame), inPage)
		}
	}
	if _, inPage := deliver.Pinned(delivertest.Posts(3), 0); !inPage {
		t.Error("the part of a usual page is copied")
	}
}

// TestPageBytes: a page ends with the event that makes it full, so that its memory is bounded however
// long the records are.
func TestPageBytes(t *testing.T) {
	t.Parallel()
	events := delivertest.Posts(100)
	for i := range events {
		events[i].Record = make([]byte, 5000)
	}
	log := delivertest.NewLog(events...)
	for most, want := range map[int]uint64{1: 2, 5000: 2, 6000: 3, 15_000: 4, 1 << 20: 101} {
		pager := deliver.NewPager(log, deliver.Options{PageBytes: most})
		if _, next, err := pager.Read(t.Context(), 1); err != nil || next != want {
			t.Errorf("pages of %d bytes: next %d, %v, want %d", most, next, err, want)
		}
	}
}

// Without streams no page is kept: memory must not be taken by what nothing reads.
func TestPagesGoWithTheLastStream(t *testing.T) {
	t.Parallel()
	pager := deliver.NewPager(delivertest.NewLog(delivertest.Posts(1000)...), deliver.Options{})
	if _, _, err := pager.Read(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if n := pager.Kept(); n != 1 {
		t.Fatalf("%d pages are kept for a stream", n)
	}
	if pager.Leave(); pager.Kept() != 0 {
		t.Errorf("%d pages are kept without a stream", pager.Kept())
	}
}
