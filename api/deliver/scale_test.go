package deliver_test

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/api/deliver"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/errgroup"
)

// Tests with consumers in a process of their own, so that the CPU time and the memory of the server
// are measured alone. They are small unless the environment says otherwise:
//
//	CISTERNTEST_REPLAY=2000000 go test -count 1 -v -timeout 20m -run TestScaleReplay ./api/deliver
//	CISTERNTEST_FANOUT=100 go test -count 1 -v -run TestScaleFanOut ./api/deliver
//	CISTERNTEST_STREAMS=1000 go test -count 1 -v -timeout 20m -run TestScaleStreams ./api/deliver

// consumers are the streams that the child process opens.
type consumers struct {
	Address string
	// Path is what is asked for, with each query. Default: /stream.
	Path string
	// Acknowledges has each stream acknowledge every event by a frame and a write of its own.
	Acknowledges bool
	// Queries open a stream each. Events are the messages that each must have before it ends; 0:
	// until standard input ends.
	Queries []string
	Events  int
	// Pause is how long a stream waits after each 64 KiB.
	Pause time.Duration
	// Times is the file for the ids and times (unix nanoseconds) of all messages; "": none.
	Times string
}

const consumersVariable = "CISTERNTEST_CONSUMERS"

// TestScaleChild is the child process.
func TestScaleChild(t *testing.T) {
	text := os.Getenv(consumersVariable)
	if text == "" {
		t.Skip("runs as a child of the other tests")
	}
	var c consumers
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	var mu sync.Mutex
	var times []byte
	ready, ended := make(chan struct{}, len(c.Queries)), make(chan struct{})
	for _, query := range c.Queries {
		g.Go(func() error {
			own, err := c.consume(query, ready, ended)
			mu.Lock()
			defer mu.Unlock()
			times = append(times, own...)
			return err
		})
	}
	for range c.Queries {
		<-ready
	}
	fmt.Fprintln(os.Stderr, "ready")
	if c.Events == 0 {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(ended)
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if c.Times != "" {
		if err := os.WriteFile(c.Times, times, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// consume reads one stream.
func (c *consumers) consume(query string, ready chan<- struct{}, ended <-chan struct{}) (times []byte, err error) {
	conn, err := net.Dial("tcp", c.Address)
	if err != nil {
		return nil, err
	}
	in := bufio.NewReaderSize(conn, 64<<10)
	_, err = fmt.Fprintf(conn, "GET %s%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", cmp.Or(c.Path, "/stream"), query)
	if err != nil {
		return nil, err
	}
	for line := "x"; line != "\r\n"; {
		if line, err = in.ReadString('\n'); err != nil {
			return nil, err
		}
	}
	ready <- struct{}{}
	go func() {
		<-ended
		_ = conn.Close()
	}()
	read := 0
	for n := 0; c.Events == 0 || n < c.Events; n++ {
		id, size, err := readEvent(in)
		if c.Events == 0 && errors.Is(err, net.ErrClosed) {
			return times, nil
		}
		if err != nil {
			return nil, fmt.Errorf("after %d events: %w", n, err)
		}
		if c.Acknowledges {
			if _, err := conn.Write(maskedFrame(fmt.Sprintf(`{"type":"ack","id":%d}`, id))); err != nil {
				return nil, fmt.Errorf("acknowledge %d: %w", id, err)
			}
		}
		if c.Times != "" {
			times = binary.LittleEndian.AppendUint64(times, id)
			times = binary.LittleEndian.AppendUint64(times, uint64(time.Now().UnixNano()))
		}
		if read += size; c.Pause > 0 && read > 64<<10 {
			read = 0
			time.Sleep(c.Pause)
		}
	}
	return times, nil
}

// maskedFrame returns the frame of a short text as clients send it, with a mask of zeros.
func maskedFrame(text string) []byte {
	return append([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}, text...)
}

// readEvent reads a frame, and returns the id of its event, 0 for none.
func readEvent(in *bufio.Reader) (id uint64, size int, err error) {
	head, err := in.Peek(10)
	if err != nil {
		return 0, 0, err
	}
	at, size := 2, int(head[1])
	switch size {
	case 126:
		at, size = 4, int(binary.BigEndian.Uint16(head[2:]))
	case 127:
		at, size = 10, int(binary.BigEndian.Uint64(head[2:]))
	}
	begin, err := in.Peek(at + min(size, 30))
	if err != nil {
		return 0, 0, err
	}
	if rest, ok := bytes.CutPrefix(begin[at:], []byte(`{"id":`)); ok {
		digits, _, _ := bytes.Cut(rest, []byte(","))
		if id, err = strconv.ParseUint(string(digits), 10, 64); err != nil {
			return 0, 0, err
		}
	}
	_, err = in.Discard(at + size)
	return id, size, err
}

// start runs the child process. It has opened all streams on return. wait ends its standard input,
// and waits for it.
func (c consumers) start(t testing.TB) (wait func() error) {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestScaleChild$", "-test.timeout", "1h")
	cmd.Env = append(os.Environ(), consumersVariable+"="+string(text))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	var printed bytes.Buffer
	cmd.Stdout = &printed
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "ready" {
		t.Log(lines.Text())
	}
	return func() error {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("%w: %s", err, printed.String())
		}
		return nil
	}
}

// number reads a size from the environment.
func number(t *testing.T, name string, standard int) int {
	t.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv(name), strconv.Itoa(standard)))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// placeOf has the store on disk if the environment has that variable, and otherwise in memory.
func placeOf(t *testing.T, name string) store.Options {
	if os.Getenv(name) == "" {
		return store.Options{}
	}
	return store.Options{FS: vfs.Default, Dir: filepath.Join(t.TempDir(), "db")}
}

// TestScaleReplay replays a log with bodies to one consumer, which reads as fast as it can.
func TestScaleReplay(t *testing.T) {
	storetest.WithoutRace(t)
	n := number(t, "CISTERNTEST_REPLAY", 20_000)
	s := postStore(t, placeOf(t, "CISTERNTEST_REPLAY"), n)
	srv := serveStore(t, s, deliver.Options{})
	for range 3 {
		began, cpu := time.Now(), cpuTime(t)
		wait := consumers{Address: srv.Listener.Addr().String(), Queries: []string{"?cursor=1&kinds=record,account,identity,repo"}, Events: int(s.Head())}.start(t)
		if err := wait(); err != nil {
			t.Fatal(err)
		}
		took, used := time.Since(began), cpuTime(t)-cpu
		t.Logf("%d events in %.2f s: %.0f a second, %.0f a CPU-second of the server", s.Head(), took.Seconds(),
			float64(s.Head())/took.Seconds(), float64(s.Head())/used.Seconds())
	}
}

// TestScaleFanOut commits at a steady rate to consumers of different filters, and compares with one
// consumer. Each consumer must get all that it wants.
func TestScaleFanOut(t *testing.T) {
	storetest.WithoutRace(t)
	n, rate, seconds := number(t, "CISTERNTEST_FANOUT", 4), number(t, "CISTERNTEST_RATE", 2000), 2
	if n > 4 {
		seconds = 20
	}
	one := fanOut(t, []string{"?kinds=record"}, rate, seconds)
	rng := rand.New(rand.NewPCG(1, 2))
	queries := make([]string, n)
	for i := range queries {
		var parts []string
		if i%3 != 0 {
			parts = append(parts, "collections="+fanOutCollections[rng.IntN(len(fanOutCollections))])
		}
		if i%3 != 1 {
			dids := make([]string, 50)
			for j := range dids {
				dids[j] = storetest.DID(rng.IntN(1000))
			}
			parts = append(parts, "dids="+strings.Join(dids, ","))
		}
		queries[i] = "?" + strings.Join(parts, "&")
	}
	many := fanOut(t, queries, rate, seconds)
	t.Logf("CPU of the server with %d consumers: %.2f times that with one", n, many.Seconds()/one.Seconds())
}

var fanOutCollections = []string{"app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.graph.follow", "app.bsky.feed.*", "app.test.*"}

// fanOut returns the CPU time of the server.
func fanOut(t *testing.T, queries []string, rate, seconds int) time.Duration {
	s, commit := liveStore(t, placeOf(t, "CISTERNTEST_FANOUT"), 1000)
	srv := serveStore(t, s, deliver.Options{})
	file := filepath.Join(t.TempDir(), "times")
	first := s.Head() + 1
	wait := consumers{Address: srv.Listener.Addr().String(), Queries: queries, Times: file}.start(t)
	durable := make([]int64, rate*seconds)
	var g errgroup.Group
	g.SetLimit(1000) // commits that wait for the disk
	cpu, began := cpuTime(t), time.Now()
	for i := range durable {
		time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(rate))))
		done := commit(i%1000, fanOutCollections[i%3])
		g.Go(func() error {
			err := done()
			durable[i] = time.Now().UnixNano()
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	time.Sleep(300 * time.Millisecond) // the streams have sent what there is
	used := cpuTime(t) - cpu
	if err := wait(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	last, messages := make([]int64, len(durable)), 0
	for ; len(text) > 0; text = text[16:] {
		if id := binary.LittleEndian.Uint64(text); id >= first {
			i := id - first
			last[i] = max(last[i], int64(binary.LittleEndian.Uint64(text[8:])))
			messages++
		}
	}
	var late []time.Duration
	for i, at := range last {
		if at > 0 {
			late = append(late, time.Duration(at-durable[i]))
		}
	}
	slices.Sort(late)
	if len(queries) == 1 && len(late) != len(durable) || len(late) == 0 {
		t.Errorf("%d of %d events came", len(late), len(durable))
		return used
	}
	t.Logf("%d consumers, %.0f commits a second: %d messages, from durable to the last socket p50 %s, p99 %s, server %.2f CPU-s",
		len(queries), float64(len(durable))/took.Seconds(), messages, late[len(late)/2], late[len(late)*99/100], used.Seconds())
	return used
}

// TestScaleStreams opens many streams, half of them far behind and slow, and reports the memory.
func TestScaleStreams(t *testing.T) {
	storetest.WithoutRace(t)
	n := number(t, "CISTERNTEST_STREAMS", 20)
	s, commit := liveStore(t, placeOf(t, "CISTERNTEST_STREAMS"), 1000)
	for i, events := 0, 100*n; i < events; i++ {
		if wait := commit(i%1000, "app.bsky.feed.post"); i%1000 == 999 || i == events-1 {
			if err := wait(); err != nil {
				t.Fatal(err)
			}
		}
	}
	srv := serveStore(t, s, deliver.Options{})
	atHead := consumers{Address: srv.Listener.Addr().String(), Queries: slices.Repeat([]string{""}, n/2)}
	behind := consumers{Address: srv.Listener.Addr().String(), Pause: time.Second / 2}
	for i := range n - n/2 {
		behind.Queries = append(behind.Queries, fmt.Sprintf("?cursor=%d", 1+i*int(s.Head())/n))
	}
	waits := []func() error{atHead.start(t), behind.start(t)}
	most := 0
	for i := range 20 * n {
		if err := commit(i%1000, "app.bsky.feed.post")(); err != nil {
			t.Fatal(err)
		}
		if i%n == 0 {
			most = max(most, resident(t))
		}
	}
	t.Logf("%d streams: at most %d MiB resident, store and test included", n, most>>20)
	for _, wait := range waits {
		if err := wait(); err != nil {
			t.Error(err)
		}
	}
}

// resident returns the bytes of memory that the process has.
func resident(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}
