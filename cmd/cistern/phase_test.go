package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"cistern/cmd/cistern/command"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
)

// phaseAnswer has the fields of an answer of /phase that tests look at.
type phaseAnswer struct {
	Phase, Wanted string
	Reached       bool
	Until         *time.Time
}

// phase returns what GET /phase answers.
func (x *testIndex) phase(t *testing.T) (r phaseAnswer) {
	t.Helper()
	err := x.call(t.Context(), "GET", "/phase", nil, func(b []byte) error { return json.Unmarshal(b, &r) })
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// enter requests a phase by the command, and fails the test if it is not reached.
func (x *testIndex) enter(t *testing.T, args ...string) {
	t.Helper()
	var out bytes.Buffer
	a := &app{Process: command.Process{Stdout: &out, Stderr: &out}}
	if err := a.run(t.Context(), append([]string{"phase"}, append(args, "--admin", x.admin)...)); err != nil {
		t.Fatalf("phase %v: %v\n%s", args, err, &out)
	}
}

// TestPhaseCopies suspends a daemon many times while it fetches, crawls, follows a firehose and
// serves a subscription, and copies its files with a program that knows nothing of them. The copy
// must be sound and have the head of that moment; nothing may be written meanwhile, and everything
// that reads goes on. In the end no event is lost.
//
// CISTERNTEST_PHASES is how often (4), CISTERNTEST_SEED repeats a run's decisions.
func TestPhaseCopies(t *testing.T) {
	t.Parallel()
	rounds := int(testNumber(t, "CISTERNTEST_PHASES", 4))
	seed := testNumber(t, "CISTERNTEST_SEED", uint64(time.Now().UnixNano()))
	t.Logf("CISTERNTEST_SEED=%d CISTERNTEST_PHASES=%d repeats this run", seed, rounds)
	n := startNetwork(t, simnet.Options{Seed: seed, Repos: 40, Hosts: 3})
	for _, h := range n.Hosts() {
		h.Inject(simnet.Fault{Kind: simnet.Latency, Delay: 5 * time.Millisecond})
	}
	x := newTestIndex(t)
	stop := x.start(t, x.args(n, "--mode", "full", "--relay", n.Relay(), "--backlinks"))
	x.prime(t, n, n.RelayHost())
	if status, answer := x.send(t, "PUT", "/subscriptions/s", `{"start":"oldest"}`); status != 200 && status != 201 {
		t.Fatalf("subscription: %d %s", status, answer)
	}
	sub := &phaseConsumer{t: t, index: x, acked: map[uint64]bool{}}
	l := liveliness{t: t, network: n, rng: rand.New(rand.NewPCG(seed, 1)), only: 80}
	rng := rand.New(rand.NewPCG(seed, 2))
	for round := range rounds {
		ctx, rest := context.WithCancel(t.Context())
		worked := make(chan struct{})
		go func() {
			defer close(worked)
			for ctx.Err() == nil {
				l.act(1)
				pause(ctx, time.Millisecond)
			}
		}()
		sub.read(1 + rng.IntN(100))
		pause(ctx, time.Duration(rng.IntN(100))*time.Millisecond) // a random moment
		x.enter(t, "suspend", "--for", "5m")
		x.suspended(t, round, sub)
		x.enter(t, "resume")
		rest()
		<-worked
	}
	l.bringBack()
	x.settle(t, map[string]int64{"repos": int64(len(n.Accounts())), "synced": active(n.Accounts())})
	x.awaitRevs(t, n.Accounts())
	x.wantLog(t, n.Accounts())
	stop()
	x.wantStore(t, n.Accounts())
}

// suspended looks at a suspended daemon, and copies it.
func (x *testIndex) suspended(t *testing.T, round int, sub *phaseConsumer) {
	t.Helper()
	before, head := x.files(t), x.head(t)
	sub.read(20)
	sub.reconnect()
	var stats struct {
		Phase  phaseAnswer
		Paused map[string][]string
	}
	err := x.call(t.Context(), "GET", "/stats", nil, func(b []byte) error { return json.Unmarshal(b, &stats) })
	if err != nil || stats.Phase.Phase != "suspended" || len(stats.Paused) != 3 {
		t.Errorf("round %d: stats %+v, %v", round, stats, err)
	}
	err = x.call(t.Context(), "GET", "/metrics", nil, func(b []byte) error {
		if !strings.Contains(string(b), "\ncistern_phase 2\n") {
			t.Error("the metric of the phase is not 2")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if status, answer := x.send(t, "PUT", "/repos", `{"did":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"}`); status != 503 || !strings.Contains(answer, "suspended") {
		t.Errorf("round %d: a write is answered %d %s", round, status, answer)
	}
	x.replayFrom(t, sub.replayed)
	sub.replayed = head // reading everything in each round would take the square of the rounds
	x.snapshot(t)
	copied := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(copied, os.DirFS(x.dir)); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(store.Options{Dir: copied})
	if err != nil {
		t.Fatalf("round %d: open the copy: %v", round, err)
	}
	if s.Head() != head {
		t.Errorf("round %d: head %d of the copy, %d of the daemon", round, s.Head(), head)
	}
	storetest.Check(t, s)
	wantBacklinks(t, s, filepath.Join(copied, linksDir))
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if d := cmp.Diff(before, x.files(t)); d != "" {
		t.Errorf("round %d: written while suspended (-before +after):\n%s", round, d)
	}
}

// snapshot reads all current records, as a new consumer does.
func (x *testIndex) snapshot(t *testing.T) {
	t.Helper()
	ws, _, err := websocket.DefaultDialer.DialContext(t.Context(), "ws://"+x.public+"/stream?snapshot=true", nil)
	if err != nil {
		t.Fatalf("snapshot: %v", err)
	}
	defer ws.Close()
	for {
		_ = ws.SetReadDeadline(time.Now().Add(time.Minute))
		_, message, err := ws.ReadMessage()
		if err != nil {
			t.Errorf("snapshot: %v", err)
			return
		}
		if bytes.Contains(message, []byte(`"type":"snapshot_end"`)) {
			return
		}
	}
}

// files returns size and time of everything in the data directory.
func (x *testIndex) files(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(x.dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		i, err := e.Info()
		if err == nil {
			files[name] = fmt.Sprint(i.Size(), i.ModTime().UnixNano())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// phaseConsumer acknowledges each event of a subscription, and wants none of them again.
type phaseConsumer struct {
	t     *testing.T
	index *testIndex
	ws    *websocket.Conn
	acked map[uint64]bool

	replayed uint64 // the log is read up to it
}

// read takes up to n events, as many as come.
func (c *phaseConsumer) read(n int) {
	c.t.Helper()
	for c.ws == nil {
		ws, res, err := websocket.DefaultDialer.DialContext(c.t.Context(), "ws://"+c.index.admin+"/subscriptions/s/events", nil)
		if err != nil && (res == nil || res.StatusCode != 409) { // the former connection may not have ended yet
			c.t.Fatalf("consumer: %v", err)
		}
		c.ws = ws
	}
	for range n {
		_ = c.ws.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		_, message, err := c.ws.ReadMessage()
		if err != nil {
			c.ws.Close()
			c.ws = nil
			return // nothing comes any more
		}
		var ev frame
		if err := json.Unmarshal(message, &ev); err != nil || ev.ID == 0 {
			c.t.Fatalf("consumer: %s: %v", message, err)
		}
		if c.acked[ev.ID] {
			c.t.Errorf("event %d comes again although it was acknowledged", ev.ID)
		}
		c.acked[ev.ID] = true
		if err := c.ws.WriteMessage(websocket.TextMessage, fmt.Appendf(nil, `{"type":"ack","id":%d}`, ev.ID)); err != nil {
			c.t.Fatal(err)
		}
	}
}

// reconnect ends the connection politely, so that every acknowledgement has arrived, and makes
// another one.
func (c *phaseConsumer) reconnect() {
	c.t.Helper()
	if c.ws != nil && sayGoodbye(c.ws) == nil {
		_ = c.ws.SetReadDeadline(time.Now().Add(10 * time.Second))
		for {
			_, _, err := c.ws.ReadMessage()
			if err == nil {
				continue
			}
			if !websocket.IsCloseError(err, 1000) {
				c.t.Errorf("consumer: goodbye at a suspended daemon: %v", err)
			}
			break
		}
		c.ws.Close()
	}
	c.ws = nil
	c.read(20)
}

// TestPhaseRequests: what is refused, what the command says, and a phase that ends by itself.
func TestPhaseRequests(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 5, Repos: 3, Hosts: 1})
	x := newTestIndex(t)
	x.start(t, x.args(n, "--mode", "full", "--relay", n.Relay()))
	for body, want := range map[string]string{
		`{"phase":"asleep"}`:                   `phase \"asleep\" is unknown: want active, draining, suspended`,
		`{"phase":"suspended","for":"long"}`:   `for \"long\"`,
		`{"phase":"suspended","for":"25h"}`:    `25h0m0s`,
		`{"phase":"suspended","for":"-1s"}`:    `-1s`,
		`{"phase":"active","for":"1m"}`:        `has no end`,
		`{"phase":"suspended","until":"noon"}`: `until`,
	} {
		if status, answer := x.send(t, "PUT", "/phase", body); status != 400 || !strings.Contains(answer, want) {
			t.Errorf("%s: %d %s", body, status, answer)
		}
	}
	if r := x.phase(t); r.Phase != "active" || !r.Reached || r.Until != nil {
		t.Errorf("after refusals: %+v", r)
	}
	if status, answer := x.send(t, "PUT", "/phase", `{"phase":"suspended","for":"300ms"}`); status/100 != 2 {
		t.Errorf("suspend: %d %s", status, answer)
	}
	x.await(t, "the daemon to resume by itself", func() error {
		if r := x.phase(t); r.Phase != "active" || !r.Reached {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	x.enter(t, "drain", "--for", "1h")
	if r := x.phase(t); r.Phase != "draining" || !r.Reached || r.Until == nil {
		t.Errorf("draining: %+v", r)
	}
	if status, answer := x.send(t, "PUT", "/repos", `{"did":"`+n.DIDs()[0]+`"}`); status != 200 {
		t.Errorf("a write while draining: %d %s", status, answer)
	}
	for _, src := range x.sources(t, "") {
		if src.Running {
			t.Errorf("%s is connected while draining", src.URL)
		}
	}
	x.enter(t, "resume")
	x.settle(t, map[string]int64{"repos": 3, "synced": 3})
	var out bytes.Buffer
	a := &app{Process: command.Process{Stdout: &out, Stderr: io.Discard}}
	if err := a.run(t.Context(), []string{"phase", "--admin", x.admin}); err != nil || out.String() != "active\n" {
		t.Errorf("phase: %q, %v", &out, err)
	}
	if err := a.run(t.Context(), []string{"phase", "suspend", "--for", "2d", "--admin", x.admin}); err == nil || !strings.Contains(err.Error(), "at most 24h") {
		t.Errorf("too long: %v", err)
	}
}

// TestPhaseSignals ends a daemon by SIGTERM at random moments of random phases, again and again. It
// must end cleanly within its budget, come back active, and lose no event.
//
// CISTERNTEST_PHASES is how often (4), CISTERNTEST_SEED repeats a run's decisions.
func TestPhaseSignals(t *testing.T) {
	t.Parallel()
	rounds := int(testNumber(t, "CISTERNTEST_PHASES", 4))
	seed := testNumber(t, "CISTERNTEST_SEED", uint64(time.Now().UnixNano()))
	t.Logf("CISTERNTEST_SEED=%d CISTERNTEST_PHASES=%d repeats this run", seed, rounds)
	n := startNetwork(t, simnet.Options{Seed: seed, Repos: 30, Hosts: 2})
	x := newTestIndex(t)
	args := x.args(n, "--mode", "full", "--relay", n.Relay(), "--backlinks")
	l := liveliness{t: t, network: n, rng: rand.New(rand.NewPCG(seed, 1)), only: 60}
	rng := rand.New(rand.NewPCG(seed, 2))
	for round := range rounds {
		c := startChild(t, args)
		x.await(t, "the daemon to answer", func() error { _, err := x.counts(t.Context()); return err })
		if r := x.phase(t); r.Phase != "active" || r.Wanted != "active" {
			t.Errorf("round %d: begins as %+v", round, r)
		}
		if round == 0 {
			x.prime(t, n, n.RelayHost())
		}
		l.act(30)
		for range rng.IntN(3) {
			wanted := []string{`{"phase":"draining"}`, `{"phase":"suspended"}`, `{"phase":"active"}`}[rng.IntN(3)]
			go func() { // its answer may come after the signal
				ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
				defer cancel()
				_ = x.callBody(ctx, "PUT", "/phase", wanted)
			}()
			pause(t.Context(), time.Duration(rng.IntN(60))*time.Millisecond)
		}
		l.act(10)
		if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		l.act(10)
		if err := c.wait(t); err != nil {
			t.Fatalf("round %d: %v\n%s", round, err, c.stderr)
		}
	}
	stop := x.start(t, args)
	l.bringBack()
	x.settle(t, map[string]int64{"repos": int64(len(n.Accounts())), "synced": active(n.Accounts())})
	x.awaitRevs(t, n.Accounts())
	x.wantLog(t, n.Accounts())
	stop()
	x.wantStore(t, n.Accounts())
	x.wantBacklinks(t)
}

// callBody sends a request with a body, and takes any answer.
func (x *testIndex) callBody(ctx context.Context, method, path, body string) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", x.admin)
	if err != nil {
		return err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		method, path, x.admin, len(body), body)
	_, err = io.Copy(io.Discard, conn)
	return err
}

// TestSupervisor runs a daemon as systemd does, with a socket for its states, and hangs up.
func TestSupervisor(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "notify")
	states, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer states.Close()
	n := startNetwork(t, simnet.Options{Seed: 3, Repos: 1, Hosts: 1})
	x := newTestIndex(t)
	args := x.args(n)
	args[slices.Index(args, "warn")] = "info"
	c := startChild(t, args, "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=50000")
	await := func(want string) {
		t.Helper()
		b := make([]byte, 100)
		for {
			_ = states.SetReadDeadline(time.Now().Add(time.Minute))
			n, err := states.Read(b)
			if err != nil {
				t.Fatalf("waiting for %s: %v\n%s", want, err, c.stderr)
			}
			if got := string(b[:n]); got == want {
				return
			} else if got != "WATCHDOG=1" {
				t.Fatalf("systemd is told %s, want %s", got, want)
			}
		}
	}
	await("READY=1")
	await("WATCHDOG=1")
	x.await(t, "the daemon to answer", func() error { _, err := x.counts(t.Context()); return err })
	if err := c.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	x.await(t, "the signal to be in the log", func() error {
		if !strings.Contains(c.stderr.String(), "SIGHUP is ignored") {
			return fmt.Errorf("the log has no SIGHUP:\n%s", c.stderr)
		}
		return nil
	})
	await("WATCHDOG=1")
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	await("STOPPING=1")
	if err := c.wait(t); err != nil {
		t.Errorf("%v\n%s", err, c.stderr)
	}
	if want := "phase=suspended from=draining"; !strings.Contains(c.stderr.String(), want) {
		t.Errorf("the log has no %q:\n%s", want, c.stderr)
	}
}
