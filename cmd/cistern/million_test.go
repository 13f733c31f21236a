package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/fxamacker/cbor/v2"
	"github.com/gorilla/websocket"
	"golang.org/x/sync/errgroup"
)

const (
	// heapPerRow is the growth of the heap, in bytes for each row more, at which something keeps an entry for each: a map of
	// 64-bit numbers, the least there is, takes 9 to 18.
	heapPerRow = 6
	// cachesFull rows fill what is bounded by numbers, as the rows written last, so that more of them add nothing.
	cachesFull = 40_000
	// writers is how many accounts of the simulated network write.
	writers = 200
	// deadPDS is the host of the rows, where nobody listens.
	deadPDS = "http://127.0.0.1:1"
)

// TestMillion: what the daemon holds in memory does not grow with the repositories that it follows. Every one of them is in the
// firehose once; some accounts are found by it, fetched, and write on; readers come in everywhere.
//
// CISTERNTEST_ROWS=1000000 makes it the number of the name, which takes some minutes.
func TestMillion(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	rows := int(testNumber(t, "CISTERNTEST_ROWS", 3*cachesFull))
	sizes := []int{cachesFull, rows}
	if rows >= 1_000_000 {
		sizes = []int{1000, cachesFull, rows}
	}
	var heaps []int64
	for _, n := range sizes {
		heaps = append(heaps, measureRows(t, n))
	}
	last := len(sizes) - 1
	grown := float64(heaps[last]-heaps[last-1]) / float64(sizes[last]-sizes[last-1])
	t.Logf("the heap grew by %.2f bytes a row from %d rows to %d", grown, sizes[last-1], sizes[last])
	if grown > heapPerRow {
		t.Errorf("more than %d bytes a row", heapPerRow)
	}
}

// measureRows runs a daemon with n rows through everything, and gives its live heap then.
func measureRows(t *testing.T, n int) (heap int64) {
	n0 := startNetwork(t, simnet.Options{Seed: 23, Repos: writers, Hosts: 2, RecordsMedian: 5, RecordsMax: 20})
	m := &manyRows{t: t, n: n, index: newTestIndex(t), network: n0, rng: rand.New(rand.NewPCG(23, uint64(n)))}
	begun := time.Now()
	m.build()
	t.Logf("%d rows: made in %s, %d MB on disk", n, time.Since(begun).Round(time.Second), m.disk()>>20)

	args := append(m.index.args(n0, "--mode", "full", "--relay", m.relay()), "--plc", m.directory())
	args = dropPLC(args, n0.PLC())
	c := m.start(args)
	if status, answer := m.index.send(t, "POST", "/firehose/sources", fmt.Sprintf(`{"url":%q}`, n0.Relay())); status != http.StatusCreated {
		t.Fatalf("%d %s", status, answer)
	}
	m.write()
	m.everyRowSpeaks()
	m.read()
	m.write()
	heap = m.heap()
	rss, peak := m.memory(c)
	t.Logf("%d rows: live heap %.2f MB, resident %d MB, at most %d MB", n, float64(heap)/(1<<20), rss>>20, peak>>20)
	m.stop(c)
	c = m.start(args) // nothing may read all rows to begin with
	heap = max(heap, m.heap())
	m.stop(c)
	t.Logf("%d rows: %d MB on disk at the end", n, m.disk()>>20)
	if n < 1_000_000 {
		m.index.wantStore(t, n0.Accounts())
	}
	return heap
}

// manyRows is a daemon with many rows.
type manyRows struct {
	t       *testing.T
	n       int
	index   *testIndex
	network *simnet.Network
	rng     *rand.Rand
	spoken  int // events of the writers
}

// stateOf is the state of row i: one in a hundred is not synced.
func stateOf(i int) store.State {
	switch i % 300 {
	case 7:
		return store.StatePending
	case 107:
		return store.StateResync
	case 207:
		return store.StateGone
	}
	return store.StateSynced
}

// build makes the rows: synced ones as first copies, the others afterwards.
func (m *manyRows) build() {
	t := m.t
	s, err := store.Open(store.Options{Dir: m.index.dir})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	host, err := s.HostID(strings.TrimPrefix(deadPDS, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	const batch = 2000
	for from := 0; from < m.n; from += batch {
		var g errgroup.Group
		m.put(s, from, min(from+batch, m.n), func(r *store.Repo, _ int) {
			r.State, r.Tracked, r.Pending = store.StatePending, store.ByDiscovery, store.PendingKey{Host: host, Priority: store.PriorityDiscovery}
			r.PDS, r.Key = deadPDS, rowKey
		})
		for part := range 2 {
			g.Go(func() error {
				for i := from + part; i < min(from+batch, m.n); i += 2 {
					if err := m.importRow(s, i); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.FlushImports(); err != nil {
		t.Fatal(err)
	}
	for from := 0; from < m.n; from += batch {
		m.put(s, from, min(from+batch, m.n), func(r *store.Repo, i int) {
			next := time.Now().Add(time.Hour * 24 * 365).Unix()
			switch stateOf(i) {
			case store.StatePending:
				r.State, r.Pending = store.StatePending, store.PendingKey{Host: host, Priority: store.PriorityRetry}
			case store.StateResync:
				r.State, r.Retry = store.StateResync, store.Retry{Kind: store.Transport, Count: 3, Next: next, Error: "connection refused"}
			case store.StateGone:
				r.State, r.Status, r.Retry = store.StateGone, store.StatusDeactivated, store.Retry{Next: next}
			default:
				r.DID = ""
			}
		})
	}
}

// put changes the rows [from, to) in one batch; f gives up one by taking its DID.
func (m *manyRows) put(s *store.Store, from, to int, f func(r *store.Repo, i int)) {
	b := s.NewBatch()
	for i := from; i < to; i++ {
		r, err := s.RepoOrNew(storetest.DID(i))
		if err != nil {
			m.t.Fatal(err)
		}
		if f(&r, i); r.DID != "" {
			b.PutRepo(&r)
		}
	}
	if err := b.CommitSync(); err != nil {
		m.t.Fatal(err)
	}
}

// rowKey is a signing key, of nobody.
const rowKey = "did:key:zQ3shXjHeiBuRCKmM36cuYnm7YEMzhGnCmCyW92sRJ9pribSF"

// importRow makes the first copy of row i, of one record or two.
func (m *manyRows) importRow(s *store.Store, i int) error {
	r := store.Repo{DID: storetest.DID(i)}
	records := storetest.Records{"app.test.post/" + storetest.Rev(i): storetest.Text(fmt.Sprintf("the post of %d, which says what such posts say", i))}
	if i%2 == 0 {
		records["app.test.profile/self"] = storetest.Text(fmt.Sprint("the profile of ", i))
	}
	im := records.Import(r, storetest.Rev(1000+i))
	complete := im.Complete
	im.Complete = func(b *store.Batch, r *store.Repo) {
		complete(b, r)
		r.Handle, r.Resolved, r.Pending = fmt.Sprintf("user%d.example.com", i), 1_700_000_000, store.PendingKey{Host: r.Pending.Host}
	}
	im.Done = func(_ store.Repo, err error) {
		if err != nil {
			m.t.Errorf("import %d: %v", i, err)
		}
	}
	return s.Import(m.t.Context(), im)
}

// relay is a firehose in which the account of every row speaks once, of its status; its listing is empty.
func (m *manyRows) relay() string {
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		m.t.Fatal(err)
	}
	event := func(i int) []byte {
		body := map[string]any{"seq": i + 1, "did": storetest.DID(i), "time": "2026-01-02T03:04:05Z", "active": true}
		if stateOf(i) == store.StateGone {
			body["active"], body["status"] = false, "deactivated"
		}
		var out []byte
		for _, part := range []any{map[string]any{"op": 1, "t": "#account"}, body} {
			b, err := mode.Marshal(part)
			if err != nil {
				m.t.Error(err)
			}
			out = append(out, b...)
		}
		return out
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !strings.HasSuffix(req.URL.Path, "subscribeRepos") {
			fmt.Fprint(w, `{"repos":[]}`)
			return
		}
		var up websocket.Upgrader
		conn, err := up.Upgrade(w, req, nil)
		if err != nil {
			m.t.Error(err)
			return
		}
		defer conn.Close()
		cursor, _ := strconv.Atoi(req.URL.Query().Get("cursor"))
		for i := cursor; i < m.n && conn.WriteMessage(websocket.BinaryMessage, event(i)) == nil; i++ {
		}
		_, _, _ = conn.ReadMessage() // answers pings until the daemon goes
	}))
	m.t.Cleanup(server.Close)
	return server.URL
}

// directory knows the rows' documents, beside those of the network's accounts. Few are asked for.
func (m *manyRows) directory() string {
	network, err := url.Parse(m.network.PLC())
	if err != nil {
		m.t.Fatal(err)
	}
	others := httputil.NewSingleHostReverseProxy(network)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		did := strings.TrimPrefix(req.URL.Path, "/")
		if !strings.HasPrefix(did, "did:plc:aaaaaaaaaaaaaaa") {
			others.ServeHTTP(w, req)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{
			"id": did, "alsoKnownAs": []string{"at://user.example.com"},
			"verificationMethod": []any{map[string]any{"id": did + "#atproto", "type": "Multikey", "controller": did, "publicKeyMultibase": strings.TrimPrefix(rowKey, "did:key:")}},
			"service":            []any{map[string]any{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": deadPDS}},
		})
	}))
	m.t.Cleanup(server.Close)
	return server.URL
}

// dropPLC takes an option out of a command line.
func dropPLC(args []string, value string) (out []string) {
	for i := 0; i < len(args); i++ {
		if args[i] == "--plc" && args[i+1] == value {
			i++
			continue
		}
		out = append(out, args[i])
	}
	return out
}

// start starts the daemon and says how long it took to answer.
func (m *manyRows) start(args []string) *child {
	begun := time.Now()
	c := startChild(m.t, args, childAsShips)
	m.index.await(m.t, "the daemon to answer", func() error {
		select {
		case err := <-c.done:
			m.t.Fatalf("the daemon ended by itself: %v\n%s", err, c.stderr)
		default:
		}
		_, err := m.index.counts(m.t.Context())
		return err
	})
	m.t.Logf("%d rows: answers %d ms after its start", m.n, time.Since(begun).Milliseconds())
	return c
}

func (m *manyRows) stop(c *child) {
	m.t.Helper()
	if err := errors.Join(c.cmd.Process.Signal(syscall.SIGTERM), c.wait(m.t)); err != nil {
		m.t.Errorf("the daemon: %v\n%s", err, c.stderr)
	}
}

// write has the network's accounts write, and waits until the daemon has it all.
func (m *manyRows) write() {
	for range 5 {
		for _, a := range m.network.Accounts() {
			if _, err := a.Mutate(1 + m.rng.IntN(3)); err != nil {
				m.t.Fatal(err)
			}
		}
	}
	m.index.awaitRevs(m.t, m.network.Accounts())
}

// everyRowSpeaks waits until the daemon has handled the event of every row.
func (m *manyRows) everyRowSpeaks() {
	begun := time.Now()
	for seq := int64(0); seq < int64(m.n); {
		if time.Since(begun) > 10*time.Minute {
			m.t.Fatalf("only %d of %d events are handled", seq, m.n)
		}
		time.Sleep(50 * time.Millisecond)
		seq = m.n64()
	}
	m.t.Logf("%d rows: an event of each was handled after %s", m.n, time.Since(begun).Round(100*time.Millisecond))
}

// n64 is the cursor of the rows' relay.
func (m *manyRows) n64() int64 {
	for _, s := range m.index.sources(m.t, "") {
		if !s.Persisted {
			return s.Stats.Cursor
		}
	}
	return 0
}

// read reads the stream from random places, and random rows.
func (m *manyRows) read() {
	head := m.index.head(m.t)
	for range 50 {
		left := 100
		err := m.index.stream(m.t.Context(), 1+m.rng.Uint64N(head-uint64(left)), func(f frame) (bool, error) {
			left--
			if f.Type == "error" || f.did() == "" {
				return false, fmt.Errorf("frame %s", f.raw)
			}
			return left > 0, nil
		})
		if err != nil {
			m.t.Fatal(err)
		}
	}
	for range 500 {
		i := m.rng.IntN(m.n)
		err := m.index.call(m.t.Context(), "GET", "/repos/"+storetest.DID(i), nil, func(b []byte) error {
			var row struct{ State, Rev, Handle string }
			err := json.Unmarshal(b, &row)
			// The dead host is asked for some pending ones.
			tried := stateOf(i) == store.StatePending && row.State == store.StateResync.String()
			if err == nil && (row.State != stateOf(i).String() && !tried || row.Rev != storetest.Rev(1000+i)) {
				err = fmt.Errorf("row %d is %s, want %s", i, b, stateOf(i))
			}
			return err
		})
		if err != nil {
			m.t.Error(err)
		}
	}
}

var heapAlloc = regexp.MustCompile(`(?m)^# HeapAlloc = (\d+)$`)

// heap is the least of what the daemon's collector leaves over some seconds: what is in flight comes and goes.
func (m *manyRows) heap() int64 {
	var least int64
	for range 8 {
		time.Sleep(250 * time.Millisecond)
		err := m.index.call(m.t.Context(), "GET", "/debug/pprof/heap?debug=1&gc=1", nil, func(b []byte) error {
			found := heapAlloc.FindSubmatch(b)
			if found == nil {
				return errors.New("no HeapAlloc in the profile")
			}
			n, err := strconv.ParseInt(string(found[1]), 10, 64)
			if least == 0 || n < least {
				least = n
			}
			return err
		})
		if err != nil {
			m.t.Fatal(err)
		}
	}
	return least
}

var resident = regexp.MustCompile(`(?m)^Vm(RSS|HWM):\s+(\d+) kB$`)

// memory is what the system says of the daemon, 0 where it says nothing.
func (m *manyRows) memory(c *child) (rss, peak int64) {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	for _, found := range resident.FindAllSubmatch(status, -1) {
		n, _ := strconv.ParseInt(string(found[2]), 10, 64)
		if string(found[1]) == "RSS" {
			rss = n << 10
		} else {
			peak = n << 10
		}
	}
	return rss, peak
}

// disk is the size of the data directory.
func (m *manyRows) disk() (n int64) {
	err := filepath.WalkDir(m.index.dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			n += info.Size()
		}
		return err
	})
	if err != nil {
		m.t.Error(err)
	}
	return n
}
