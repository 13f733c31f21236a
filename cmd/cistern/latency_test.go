package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/gorilla/websocket"
)

// syncsVariable names the file for the syncs of a child that is started with childSyncs.
const (
	syncsVariable = "CISTERNTEST_SYNCS"
	childSyncs    = childVariable + "=syncs" // as it ships, and times the syncs of its log
)

// TestLatency measures how long commits take from a relay to a consumer, beside the syncs of the
// write-ahead log in the same time: first alone, then while repositories are fetched as fast as they
// can. Every event is durable before it is sent, so no commit can be faster than its sync. The test
// is small unless the environment says otherwise:
//
//	CISTERNTEST_LATENCY=3000 go test -count 1 -v -timeout 20m -run TestLatency ./cmd/cistern
//
// fetches that many repositories of 200 records on average, at CISTERNTEST_RATE (1,000) commits a
// second. The network and the consumer are this process, the daemon is another.
func TestLatency(t *testing.T) {
	storetest.WithoutRace(t)
	const live = 200
	rest, rate, alone := 50, 300, time.Second
	if n := int(testNumber(t, "CISTERNTEST_LATENCY", 0)); n > 0 {
		rest, rate, alone = n, int(testNumber(t, "CISTERNTEST_RATE", 1000)), 20*time.Second
	} else {
		t.Parallel()
	}
	n := startNetwork(t, simnet.Options{Seed: 5, Repos: live + rest, RecordsMedian: 100,
		RecordsMax: 20_000, NoLimit: true, P256Every: -1})
	// The heap of a large network takes long to mark, and the network must not delay commits itself.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	accounts := n.Accounts()
	l := newLatency(t, n, accounts[:live], rate)
	l.follow()
	l.commit(func(since time.Duration) bool { return since < alone })
	l.report("alone")
	dids := n.DIDs()[live:]
	for ; len(dids) > 0; dids = dids[min(len(dids), 1000):] {
		some := dids[:min(len(dids), 1000)]
		if err := l.index.call(t.Context(), "PUT", "/repos", some, nil); err != nil {
			t.Fatal(err)
		}
	}
	began, asked, synced := time.Now(), time.Now(), false
	l.commit(func(time.Duration) bool {
		if !synced && time.Since(asked) > 200*time.Millisecond {
			counts, err := l.index.counts(t.Context())
			asked, synced = time.Now(), err == nil && counts["synced"] == int64(live+rest)
		}
		return !synced
	})
	l.report(fmt.Sprintf("beside the backfill of %d records in %.1f s", records(accounts[live:]),
		time.Since(began).Seconds()))
	l.stop()
}

// latency is a daemon that follows a relay, with one consumer of live events.
type latency struct {
	t        *testing.T
	index    *testIndex
	network  *simnet.Network
	accounts []*simnet.Account
	rate     int
	syncs    string // file of the times of syncs
	daemon   *child

	commits int // so far
	first   int // of the phase

	mu   sync.Mutex
	sent []time.Time // when each commit was made, by its number
	came []time.Time // when its event came
}

func newLatency(t *testing.T, n *simnet.Network, accounts []*simnet.Account, rate int) *latency {
	l := &latency{t: t, index: newTestIndex(t), network: n, accounts: accounts, rate: rate,
		syncs: filepath.Join(t.TempDir(), "syncs")}
	l.daemon = startChild(t, l.index.args(n, "--relay", n.Relay()), childSyncs, syncsVariable+"="+l.syncs)
	l.index.await(t, "the daemon to answer", func() error {
		_, err := l.index.counts(t.Context())
		return err
	})
	return l
}

// follow has the daemon copy the accounts that commit, and connects the consumer.
func (l *latency) follow() {
	var dids []string
	for _, a := range l.accounts {
		dids = append(dids, a.DID())
	}
	if err := l.index.call(l.t.Context(), "PUT", "/repos", dids, nil); err != nil {
		l.t.Fatal(err)
	}
	l.index.settle(l.t, map[string]int64{"synced": int64(len(dids))})
	l.index.follow(l.t, l.network.RelayHost())
	url := fmt.Sprintf("ws://%s/stream?kinds=record&live=true", l.index.public)
	conn, _, err := websocket.DefaultDialer.DialContext(l.t.Context(), url, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.consume(conn)
	}()
	l.t.Cleanup(func() {
		conn.Close()
		<-done
	})
}

// consume notes when the events of commits come, until the connection ends. The text of each record
// is the number of its commit.
func (l *latency) consume(conn *websocket.Conn) {
	const mark = `"text":"`
	for {
		_, message, err := conn.ReadMessage()
		if err != nil {
			return
		}
		now := time.Now()
		number := 0
		if i := bytes.Index(message, []byte(mark)); i >= 0 {
			_, _ = fmt.Sscanf(string(message[i+len(mark):]), "%d", &number)
		}
		l.mu.Lock()
		if number < len(l.came) {
			l.came[number] = now
		}
		l.mu.Unlock()
	}
}

// commit has accounts commit at the rate, one after the other, while more wants it, and waits for
// the events.
func (l *latency) commit(more func(since time.Duration) bool) {
	l.first = l.commits
	began := time.Now()
	for i := 0; more(time.Since(began)); i++ {
		pause(l.t.Context(), time.Until(began.Add(time.Duration(i)*time.Second/time.Duration(l.rate))))
		a := l.accounts[l.commits%len(l.accounts)]
		l.mu.Lock()
		l.sent, l.came = append(l.sent, time.Now()), append(l.came, time.Time{})
		l.mu.Unlock()
		post := simnet.Post(fmt.Sprint(l.commits))
		if _, err := a.Put("app.bsky.feed.post/latency", post); err != nil {
			l.t.Fatal(err)
		}
		l.commits++
	}
	l.index.await(l.t, "the events of all commits", func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if i := slices.IndexFunc(l.came[l.first:], time.Time.IsZero); i >= 0 {
			return fmt.Errorf("commit %d has no event", l.first+i)
		}
		return nil
	})
}

// logSync is a sync of the write-ahead log.
type logSync struct {
	began time.Time
	took  time.Duration
}

// syncsOf returns the syncs that began between two times, in their order.
func (l *latency) syncsOf(from, to time.Time) (all []logSync) {
	text, err := os.ReadFile(l.syncs)
	if err != nil {
		l.t.Fatal(err)
	}
	for ; len(text) >= 16; text = text[16:] {
		s := logSync{time.Unix(0, int64(binary.LittleEndian.Uint64(text))),
			time.Duration(binary.LittleEndian.Uint64(text[8:]))}
		if !s.began.Before(from) && s.began.Before(to) {
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		l.t.Fatal("no syncs of the log")
	}
	return all
}

// report logs the latencies of the phase that commit has ended, and the syncs during it. A long sync
// delays more commits than a short one, so it also logs how long the disk alone delayed each commit:
// until the end of the sync that was running when it was made, and for the next sync.
func (l *latency) report(phase string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	syncs := l.syncsOf(l.sent[l.first], l.came[l.commits-1])
	var late, disk, each []time.Duration
	next := 0 // the first sync after the commit
	for i := l.first; i < l.commits; i++ {
		at := l.sent[i]
		late = append(late, l.came[i].Sub(at))
		for next < len(syncs)-1 && syncs[next].began.Before(at) {
			next++
		}
		rest := time.Duration(0)
		if next > 0 {
			before := syncs[next-1]
			rest = max(0, before.began.Add(before.took).Sub(at))
		}
		disk = append(disk, rest+syncs[next].took)
	}
	for _, s := range syncs {
		each = append(each, s.took)
	}
	for _, d := range [][]time.Duration{late, disk, each} {
		slices.Sort(d)
	}
	l.t.Logf("%s: p50, p90, p99, most in ms of %d commits: %v; of these, the disk: %v; of %d syncs: %v",
		phase, len(late), quantiles(late), quantiles(disk), len(each), quantiles(each))
	const p = 0.99
	l.t.Logf("%s: p99 of commits is %.1f ms above that of the disk, and %.1f ms above that of syncs",
		phase, float64(quantile(late, p)-quantile(disk, p))/1e6, float64(quantile(late, p)-quantile(each, p))/1e6)
}

func (l *latency) stop() {
	if err := l.daemon.cmd.Process.Signal(os.Interrupt); err != nil {
		l.t.Error(err)
	}
	if err := l.daemon.wait(l.t); err != nil {
		l.t.Errorf("%v\n%s", err, l.daemon.stderr)
	}
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	return sorted[int(q*float64(len(sorted)-1))]
}

func quantiles(sorted []time.Duration) string {
	var b strings.Builder
	for _, q := range []float64{0.5, 0.9, 0.99, 1} {
		fmt.Fprintf(&b, " %.2f", float64(quantile(sorted, q))/1e6)
	}
	return b.String()[1:]
}

// timedSyncs writes to a file when each sync of the write-ahead log began, and how long it took.
func timedSyncs(o *store.Options) {
	f, err := os.Create(os.Getenv(syncsVariable))
	if err != nil {
		panic(err)
	}
	o.FS = syncTimes{vfs.Default, f}
}

type syncTimes struct {
	vfs.FS
	times *os.File
}

func (s syncTimes) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := s.FS.Create(name, c)
	return s.wrap(name, f), err
}

func (s syncTimes) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := s.FS.ReuseForWrite(old, name, c)
	return s.wrap(name, f), err
}

func (s syncTimes) wrap(name string, f vfs.File) vfs.File {
	if f == nil || !strings.HasSuffix(name, ".log") {
		return f
	}
	return timedFile{f, s.times}
}

type timedFile struct {
	vfs.File
	times *os.File
}

func (f timedFile) SyncData() error {
	began := time.Now()
	err := f.File.SyncData()
	b := binary.LittleEndian.AppendUint64(nil, uint64(began.UnixNano()))
	_, _ = f.times.Write(binary.LittleEndian.AppendUint64(b, uint64(time.Since(began))))
	return err
}
