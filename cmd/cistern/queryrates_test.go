package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/ingest/simnet"
	"cistern/store/storetest"
)

// queryRates has a daemon in another process, whose answers are timed.
type queryRates struct {
	t      *testing.T
	index  *testIndex
	daemon *child
	truth  []simnet.Truth
	paths  [][]string // of each repository
	spans  time.Duration
	most   int // requests of each connection; 0: as many as the time allows
}

// TestQueryRates measures how many queries a second the daemon answers, and what one greedy client
// does to the queries of another. Each answer is compared with the network. The test is small
// unless the environment says otherwise:
//
//	CISTERNTEST_QUERIES=10 go test -count 1 -v -timeout 20m -run TestQueryRates ./cmd/cistern
//
// measures each kind of query for that many seconds. The clients are in this process.
func TestQueryRates(t *testing.T) {
	storetest.WithoutRace(t)
	q := newQueryRates(t)
	for _, connections := range []int{1, 16, 64} {
		q.measure("getRecord", connections, q.getRecord)
	}
	for _, connections := range []int{1, 16} {
		q.measure("listRecords of 100", connections, q.listRecords)
	}
	q.greedy()
}

// newQueryRates starts a daemon, with more arguments, and waits until it has the whole network.
func newQueryRates(t *testing.T, more ...string) *queryRates {
	t.Helper()
	q := &queryRates{t: t, index: newTestIndex(t), most: 20}
	repos, large := 20, 1_000
	if s := int(testNumber(t, "CISTERNTEST_QUERIES", 0)); s > 0 {
		q.spans, q.most = time.Duration(s)*time.Second, 0
		repos, large = 500, 50_000
	} else {
		t.Parallel()
	}
	n := startNetwork(t, simnet.Options{Seed: 6, Repos: repos, RecordsMedian: 100, RecordsMax: large,
		NoLimit: true, P256Every: -1})
	more = append(more, "--mode", "full", "--relay", n.Relay(), "--crawl", "repos::"+n.Relay())
	q.daemon = startChild(t, q.index.args(n, more...))
	q.index.await(t, "the daemon to answer", func() error { _, err := q.index.counts(t.Context()); return err })
	q.index.settle(t, map[string]int64{"repos": int64(len(n.Accounts())), "synced": active(n.Accounts())})
	for _, a := range n.Accounts() {
		truth := a.Truth()
		if truth.Status != simnet.Active {
			continue
		}
		var paths []string
		for path := range truth.Records {
			if strings.HasPrefix(path, "app.bsky.") {
				paths = append(paths, path)
			}
		}
		slices.Sort(paths)
		if len(paths) > 0 {
			q.truth, q.paths = append(q.truth, truth), append(q.paths, paths)
		}
	}
	return q
}

// ask is the path of a query and what its answer must contain.
type ask struct{ path, want string }

func (q *queryRates) getRecord(rng *rand.Rand) ask {
	i := rng.IntN(len(q.truth))
	path := q.paths[i][rng.IntN(len(q.paths[i]))]
	collection, rkey, _ := strings.Cut(path, "/")
	return ask{fmt.Sprintf("com.atproto.repo.getRecord?repo=%s&collection=%s&rkey=%s", q.truth[i].DID, collection, rkey),
		q.truth[i].Records[path].String()}
}

// listRecords asks for a page of 100 records of one collection, from any record on that has as many
// before it.
func (q *queryRates) listRecords(rng *rand.Rand) ask {
	for {
		i := rng.IntN(len(q.truth))
		at := rng.IntN(len(q.paths[i]))
		collection, rkey, _ := strings.Cut(q.paths[i][at], "/")
		if at < 100 || !strings.HasPrefix(q.paths[i][at-100], collection+"/") {
			continue
		}
		return ask{fmt.Sprintf("com.atproto.repo.listRecords?repo=%s&collection=%s&limit=100&cursor=%s", q.truth[i].DID, collection, rkey),
			q.truth[i].Records[q.paths[i][at-100]].String()}
	}
}

// getRepo asks for the largest repository.
func (q *queryRates) getRepo(*rand.Rand) ask {
	largest := 0
	for i := range q.paths {
		if len(q.paths[i]) > len(q.paths[largest]) {
			largest = i
		}
	}
	return ask{"com.atproto.sync.getRepo?did=" + q.truth[largest].DID, ""}
}

// caller sends queries over one connection. It reads answers into one buffer: its own part of the
// processors would otherwise be a third of what is measured.
type caller struct {
	conn net.Conn
	read *bufio.Reader
	host string
	body []byte
}

// call connects from a loopback address, which is a client of its own to the daemon.
func (q *queryRates) call(from string) *caller {
	q.t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := dialer.DialContext(q.t.Context(), "tcp", q.index.public)
	if err != nil {
		q.t.Fatal(err)
	}
	return &caller{conn: conn, read: bufio.NewReaderSize(conn, 64<<10), host: q.index.public}
}

// ask sends a query, and reads the answer.
func (c *caller) ask(a ask) (status int, err error) {
	if _, err := fmt.Fprintf(c.conn, "GET /xrpc/%s HTTP/1.1\r\nHost: %s\r\n\r\n", a.path, c.host); err != nil {
		return 0, err
	}
	if a.want == "" {
		res, err := http.ReadResponse(c.read, nil)
		if err != nil {
			return 0, err
		}
		defer res.Body.Close()
		_, err = io.Copy(io.Discard, res.Body)
		return res.StatusCode, err
	}
	if status, err = c.answer(); err != nil {
		return status, err
	}
	if status != http.StatusOK || !bytes.Contains(c.body, []byte(a.want)) {
		err = fmt.Errorf("%s is answered %d %.300s, want %s", a.path, status, c.body, a.want)
	}
	return status, err
}

// answer reads an answer with a Content-Length into body.
func (c *caller) answer() (status int, err error) {
	length := -1
	for {
		line, err := c.read.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		text := strings.TrimSuffix(string(line), "\r\n")
		if text == "" {
			break
		}
		if proto, rest, ok := strings.Cut(text, " "); ok && proto == "HTTP/1.1" {
			status, _ = strconv.Atoi(rest[:3])
		}
		if n, ok := strings.CutPrefix(text, "Content-Length: "); ok {
			length, _ = strconv.Atoi(n)
		}
	}
	if length < 0 {
		return status, errors.New("the answer has no Content-Length")
	}
	c.body = slices.Grow(c.body[:0], length)[:length]
	_, err = io.ReadFull(c.read, c.body)
	return status, err
}

// measure has connections send queries for a while, and reports what they got.
func (q *queryRates) measure(name string, connections int, next func(*rand.Rand) ask) {
	q.t.Helper()
	var group sync.WaitGroup
	took := make([][]time.Duration, connections)
	cpu, began := q.daemonTime(), time.Now()
	for i := range connections {
		c := q.call("127.0.0.1")
		group.Go(func() {
			defer c.conn.Close()
			took[i] = q.repeat(c, rand.New(rand.NewPCG(uint64(i), 1)), next, began)
		})
	}
	group.Wait()
	span, all := time.Since(began), slices.Concat(took...)
	cpu = q.daemonTime() - cpu
	slices.Sort(all)
	q.t.Logf("%s over %d connections: %.0f a second, p50 %v, p99 %v, %.1f µs CPU of the daemon each", name, connections,
		float64(len(all))/span.Seconds(), quantile(all, 0.5), quantile(all, 0.99), float64(cpu.Microseconds())/float64(len(all)))
}

// repeat sends queries over one connection until the time is up.
func (q *queryRates) repeat(c *caller, rng *rand.Rand, next func(*rand.Rand) ask, began time.Time) (took []time.Duration) {
	for n := 0; n < q.most || q.most == 0 && time.Since(began) < q.spans; n++ {
		a := next(rng)
		sent := time.Now()
		if _, err := c.ask(a); err != nil {
			q.t.Error(err)
			return took
		}
		took = append(took, time.Since(sent))
	}
	return took
}

// greedy measures the getRecord of one client alone, and then beside a client that asks for as much
// as it can get.
func (q *queryRates) greedy() {
	q.t.Helper()
	q.measure("getRecord of a modest client alone", 1, q.getRecord)
	for _, kind := range []struct {
		name string
		next func(*rand.Rand) ask
	}{{"getRepo", q.getRepo}, {"listRecords", q.listRecords}, {"getRecord", q.getRecord}} {
		args, rng := []string{q.index.public}, rand.New(rand.NewPCG(1, 2))
		for range 100 {
			args = append(args, kind.next(rng).path)
		}
		c := startChild(q.t, args, childGreedy)
		q.index.await(q.t, "the greedy client", func() error {
			if !strings.Contains(c.stderr.String(), "answered") {
				return errors.New("it is not answered yet")
			}
			return nil
		})
		q.measure("getRecord beside a client with 64 connections of "+kind.name, 1, q.getRecord)
		if err := c.cmd.Process.Kill(); err != nil {
			q.t.Error(err)
		}
		<-c.done
	}
}

// beGreedy sends queries over 64 connections without waiting for answers, whose bytes it drops. So
// it takes little of the processors itself, as a client on another machine would.
func beGreedy(address string, paths []string) {
	runtime.GOMAXPROCS(1)
	var once sync.Once
	var group sync.WaitGroup
	for i := range 64 {
		group.Go(func() {
			dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
			for {
				conn, err := dialer.Dial("tcp", address)
				if err != nil {
					return // the daemon has ended
				}
				group.Go(func() {
					for n := i; ; n++ {
						if _, err := fmt.Fprintf(conn, "GET /xrpc/%s HTTP/1.1\r\nHost: x\r\n\r\n", paths[n%len(paths)]); err != nil {
							return
						}
					}
				})
				for b := make([]byte, 256<<10); err == nil; {
					_, err = conn.Read(b)
					once.Do(func() { fmt.Fprintln(os.Stderr, "answered") })
				}
				conn.Close()
			}
		})
	}
	group.Wait()
	os.Exit(0)
}

// daemonTime returns the processor time that the daemon has used.
func (q *queryRates) daemonTime() time.Duration {
	q.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", q.daemon.cmd.Process.Pid))
	if err != nil {
		q.t.Fatal(err)
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	if err1 != nil || err2 != nil {
		q.t.Fatalf("%s", b)
	}
	return time.Duration(user+system) * tick
}
