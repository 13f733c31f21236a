package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
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
	// rowsUnit divides the numbers of rows, so that the caches of the latest rows (two generations of
	// 4096) are equally full.
	rowsUnit = 4096
	// rowsBase rows fill every structure with a limit, so that more rows add nothing.
	rowsBase = 2 * rowsUnit
	// rowsMany are enough that 8 bytes for each are visible.
	rowsMany = 900_000
	// writers is how many accounts of the simulated network write.
	writers = 200
	// deadPDS is the host of the rows, which no process listens on.
	deadPDS = "http://127.0.0.1:1"
)

// heap returns the smallest heap that the daemon reports over some seconds: work in flight changes
// it.
type heap struct{ bytes, objects int64 }

// within reports whether now, with so many more rows, is no larger than was. The least that
// something can keep for a row is an entry of a map: an object for a DID, and 10 to 20 bytes for a
// number, which pools of free buffers outweigh where rows are few.
func (was heap) within(now heap, rows int) bool {
	return now.objects-was.objects < 4000+int64(rows)/10 && (rows < rowsMany || now.bytes-was.bytes < 8*int64(rows))
}

// TestMillion checks that the memory of the daemon does not grow with the number of repositories
// that it follows. Each of them is in the firehose once. Some accounts are discovered by it,
// fetched, and write on. Readers start at random places.
//
// CISTERNTEST_ROWS=1000000 runs it with a million rows, which takes some minutes.
func TestMillion(t *testing.T) {
	storetest.WithoutRace(t)
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	t.Parallel()
	rows := int(testNumber(t, "CISTERNTEST_ROWS", 6*rowsUnit))
	rows = (rows + rowsUnit - 1) / rowsUnit * rowsUnit
	if rows > rowsMany {
		measureRows(t, 1000) // for its numbers in the log
	}
	few, many := measureRows(t, rowsBase), measureRows(t, rows)
	more := rows - rowsBase
	for i := range few {
		t.Logf("from %d rows to %d the heap grew by %.2f bytes and %.4f objects a row", rowsBase, rows,
			float64(many[i].bytes-few[i].bytes)/float64(more), float64(many[i].objects-few[i].objects)/float64(more))
		if !few[i].within(many[i], more) {
			t.Errorf("heap %d: with %d rows %+v, with %d rows %+v", i, rowsBase, few[i], rows, many[i])
		}
	}
}

// measureRows runs a daemon with n rows, and returns its heap after all of them have sent an event,
// and after readers and fetches.
func measureRows(t *testing.T, n int) [2]heap {
	network := startNetwork(t, simnet.Options{Seed: 23, Repos: writers, Hosts: 2, RecordsMedian: 5, RecordsMax: 20, NoLimit: true})
	m := &manyRows{t: t, n: n, index: newTestIndex(t), network: network, rng: rand.New(rand.NewPCG(23, uint64(n))), talk: make(chan struct{})}
	begun := time.Now()
	m.build()
	m.say("made in %s, %d MB on disk", time.Since(begun).Round(100*time.Millisecond), m.disk()>>20)
	args := m.index.args(network, "--mode", "full", "--relay", m.relay())
	args[slices.Index(args, "--plc")+1] = m.directory()

	c := m.start(args)
	if status, answer := m.index.send(t, "POST", "/firehose/sources", fmt.Sprintf(`{"url":%q}`, network.Relay())); status != http.StatusCreated {
		t.Fatalf("%d %s", status, answer)
	}
	m.index.follow(t, network.RelayHost())
	m.write() // so that they are found, and fetched
	m.stop(c)

	c = m.start(args)
	m.allSpeak()
	m.write()
	spoken := m.heap(c, "all have spoken")
	m.read()
	if err := m.index.call(t.Context(), "POST", "/repos/resync", network.DIDs(), nil); err != nil {
		t.Error(err)
	}
	m.write()
	used := m.heap(c, "readers and fetches")
	m.stop(c)
	m.say("%d MB on disk at the end", m.disk()>>20)
	if n <= rowsBase {
		m.index.wantStore(t, network.Accounts())
	}
	return [2]heap{spoken, used}
}

// manyRows is a daemon with many rows.
type manyRows struct {
	t       *testing.T
	n       int
	index   *testIndex
	network *simnet.Network
	rng     *rand.Rand
	talk    chan struct{} // closed when the rows' accounts are to speak
}

func (m *manyRows) say(format string, args ...any) {
	m.t.Helper()
	m.t.Logf("%d rows: "+format, append([]any{m.n}, args...)...)
}

// stateOf returns the state of row i: one in a hundred is not synced.
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

// build writes the rows: first the synced ones, as imports, then the others.
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
			r.State, r.Tracked, r.Pending = store.StatePending, store.ByNetwork, store.PendingKey{Host: host, Priority: store.PriorityDiscovery}
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
			next := time.Now().Add(20 * time.Hour).Unix() // a time further ahead counts as a mistake of the clock
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

// put changes the rows [from, to) in one batch. f drops a row by clearing its DID.
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

// rowKey is a signing key that no account uses.
const rowKey = "did:key:zQ3shXjHeiBuRCKmM36cuYnm7YEMzhGnCmCyW92sRJ9pribSF"

// importRow imports the first copy of row i, with one record or two.
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

// relay returns a firehose that sends one event about the status of every row's account. Its
// listing is empty.
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
		gone := make(chan struct{})
		go func() { // answers pings
			defer close(gone)
			_, _, _ = conn.ReadMessage()
		}()
		select {
		case <-gone:
			return
		case <-m.talk:
		}
		cursor, _ := strconv.Atoi(req.URL.Query().Get("cursor"))
		for i := cursor; i < m.n && conn.WriteMessage(websocket.BinaryMessage, event(i)) == nil; i++ {
		}
		<-gone
	}))
	m.t.Cleanup(server.Close)
	return server.URL
}

// directory serves the documents of the rows and of the network's accounts. Few are requested.
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

// start starts the daemon and logs how long it took to answer.
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
	m.say("answers %d ms after its start", time.Since(begun).Milliseconds())
	return c
}

func (m *manyRows) stop(c *child) {
	m.t.Helper()
	if err := errors.Join(c.cmd.Process.Signal(syscall.SIGTERM), c.wait(m.t)); err != nil {
		m.t.Errorf("the daemon: %v\n%s", err, c.stderr)
	}
}

// write makes the network's accounts write, and waits until the daemon has all changes.
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

// allSpeak sends an event about every row's account, and waits until the daemon has handled all.
func (m *manyRows) allSpeak() {
	begun := time.Now()
	close(m.talk)
	for done := int64(0); done < int64(m.n); {
		if time.Since(begun) > 10*time.Minute {
			m.t.Fatalf("only %d of %d events are handled", done, m.n)
		}
		time.Sleep(20 * time.Millisecond)
		for _, s := range m.index.sources(m.t, "") {
			if !s.Persisted { // the others are the network's
				done = s.Stats.Cursor
			}
		}
	}
	m.say("an event of each is handled within %s", time.Since(begun).Round(10*time.Millisecond))
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

var memStats = regexp.MustCompile(`(?m)^# (HeapAlloc|HeapObjects) = (\d+)$`)

// heap is the least that the daemon's collector leaves over some seconds: what is in flight comes and goes.
func (m *manyRows) heap(c *child, when string) heap {
	least := heap{math.MaxInt64, math.MaxInt64}
	for range 8 {
		time.Sleep(250 * time.Millisecond)
		err := m.index.call(m.t.Context(), "GET", "/debug/pprof/heap?debug=1&gc=1", nil, func(b []byte) error {
			found := memStats.FindAllSubmatch(b, -1)
			if len(found) != 2 {
				return errors.New("the profile does not say how large the heap is")
			}
			for _, f := range found {
				n, err := strconv.ParseInt(string(f[2]), 10, 64)
				if err != nil {
					return err
				}
				if string(f[1]) == "HeapAlloc" {
					least.bytes = min(least.bytes, n)
				} else {
					least.objects = min(least.objects, n)
				}
			}
			return nil
		})
		if err != nil {
			m.t.Fatal(err)
		}
	}
	rss, peak := m.memory(c)
	m.say("%s: live heap %.1f MB in %d objects, resident %d MB, at most %d MB", when, float64(least.bytes)/(1<<20), least.objects, rss>>20, peak>>20)
	return least
}

var resident = regexp.MustCompile(`(?m)^Vm(RSS|HWM):\s+(\d+) kB$`)

// memory returns what the system reports about the daemon, 0 where it reports nothing.
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

// disk returns the size of the data directory.
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
