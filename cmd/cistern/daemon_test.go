package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"cistern/cmd/cistern/command"
	"cistern/ingest/simnet"
)

// TestDaemon indexes a network, stops, starts again, and finds the changes made meanwhile.
func TestDaemon(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 7, Repos: 60, Hosts: 3, Empty: 2, OddKeys: 2, LegacyEvery: 9, Gzip: true})
	x := newTestIndex(t)
	args := x.args(n, "--crawl", "repos::"+n.Relay())
	stop := x.start(t, args)
	x.settle(t, map[string]int64{"repos": 60, "synced": 60, "records": records(n.Accounts())})
	frames := x.replay(t)
	first, synced := fold{}, 0
	for i, f := range frames {
		if f.Repo.State == "synced" {
			synced++
		} else if f.Type != "record" || f.Record.Action != "create" {
			t.Fatalf("event %d is %s", i, f.raw)
		}
		if f.ID != uint64(i+1) {
			t.Fatalf("event %d has id %d", i, f.ID)
		}
		if err := first.apply(f); err != nil {
			t.Error(err)
		}
	}
	if synced != 60 {
		t.Errorf("%d repositories are told to be synced", synced)
	}
	first.wantTruth(t, n.Accounts())
	stop()
	x.wantStore(t, n.Accounts())

	// Changes while the daemon is down, to be found by a resync.
	changed := n.Accounts()[5:25]
	ops := 0
	for i, a := range changed {
		c, err := a.Mutate(1 + i%5)
		if err != nil {
			t.Fatal(err)
		}
		ops += len(c.Ops)
	}
	stop = x.start(t, args)
	if again := x.replay(t); len(again) != len(frames) || !bytes.Equal(again[len(again)-1].raw, frames[len(frames)-1].raw) {
		t.Errorf("the log had %d events before the restart, now %d", len(frames), len(again))
	}
	if err := x.call(t.Context(), "POST", "/repos/resync", n.DIDs(), nil); err != nil {
		t.Fatal(err)
	}
	x.settle(t, map[string]int64{"synced": 60, "records": records(n.Accounts())})
	more := slices.DeleteFunc(x.replay(t)[len(frames):], func(f frame) bool { return f.Type == "repo" })
	if len(more) != ops {
		t.Errorf("the resync emitted %d events for %d changes", len(more), ops)
	}
	for _, f := range more {
		if err := first.apply(f); err != nil {
			t.Error(err)
		}
	}
	first.wantTruth(t, n.Accounts())
	stop()
	x.wantStore(t, n.Accounts())
}

// TestDaemonHostile injects every fault into single accounts and into a whole host. Nothing of them
// is stored and all other accounts are. Once the faults end, they are indexed too.
func TestDaemonHostile(t *testing.T) {
	t.Parallel()
	faults := []simnet.Fault{
		{Kind: simnet.ServerError}, {Kind: simnet.Unavailable}, {Kind: simnet.Garbage}, {Kind: simnet.Redirect}, {Kind: simnet.RedirectLoop},
		{Kind: simnet.GzipBomb, Bytes: 64 << 20}, {Kind: simnet.WrongHash}, {Kind: simnet.WrongDID}, {Kind: simnet.FutureRev},
		{Kind: simnet.BadSignature}, {Kind: simnet.HighS}, {Kind: simnet.MissingRecord}, {Kind: simnet.MissingNode},
		{Kind: simnet.Truncated}, {Kind: simnet.Reset},
	}
	n := startNetwork(t, simnet.Options{Seed: 8, Repos: 60, Hosts: 4})
	accounts := n.Accounts()
	var victims []*simnet.Account
	bad := map[string]bool{}
	for i, f := range faults {
		a := accounts[i]
		f.DID = a.DID()
		a.Host().Inject(f)
		victims, bad[a.DID()] = append(victims, a), true
	}
	var good []*simnet.Account
	for _, a := range accounts {
		if !bad[a.DID()] {
			good = append(good, a)
		}
	}
	x := newTestIndex(t)
	x.start(t, x.args(n, "--crawl", "repos::"+n.Relay()))
	x.await(t, "the good repositories", func() error {
		counts, err := x.counts(t.Context())
		if err == nil && (counts["records"] != records(good) || counts["synced"] != int64(len(good))) {
			err = fmt.Errorf("%v", counts)
		}
		return err
	})
	for _, f := range x.replay(t) {
		if bad[f.did()] && f.Type == "record" {
			t.Fatalf("stored in spite of its fault: %s", f.raw)
		}
	}
	for _, h := range n.Hosts() {
		h.ClearFaults()
	}
	x.await(t, "the others", func() error {
		var dids []string
		for _, a := range victims {
			dids = append(dids, a.DID())
		}
		if err := x.call(t.Context(), "POST", "/repos/resync", dids, nil); err != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
		counts, err := x.counts(t.Context())
		if err == nil && counts["synced"] != 60 {
			err = fmt.Errorf("%v", counts)
		}
		return err
	})
	x.wantLog(t, accounts)
}

// TestDaemonSignals stops a real process by a signal while imports are in flight.
func TestDaemonSignals(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 9, Repos: 40, Hosts: 2})
	for _, h := range n.Hosts() {
		h.Inject(simnet.Fault{Kind: simnet.Latency, Delay: 30 * time.Millisecond})
	}
	x := newTestIndex(t)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		c := startChild(t, x.args(n, "--crawl", "repos::"+n.Relay()))
		x.await(t, "some repositories", func() error {
			counts, err := x.counts(t.Context())
			if err == nil && counts["synced"] < 5 {
				err = fmt.Errorf("%v", counts)
			}
			return err
		})
		if err := c.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if err := c.wait(t); err != nil {
			t.Errorf("%s: %v\n%s", sig, err, c.stderr)
		}
		a := &app{Process: command.Process{Stdout: io.Discard, Stderr: io.Discard}}
		if err := a.run(t.Context(), []string{"check", "--data", x.dir}); err != nil {
			t.Errorf("check after %s: %v", sig, err)
		}
	}
}

// TestDaemonRefusesTwo checks that a second daemon on a store fails and says why.
func TestDaemonRefusesTwo(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 1, Repos: 1, Hosts: 1})
	x := newTestIndex(t)
	first := startChild(t, x.args(n))
	x.settle(t, map[string]int64{"repos": 0})
	y := &testIndex{dir: x.dir, public: freeAddress(t), admin: freeAddress(t)}
	a := &app{Process: command.Process{Stdout: io.Discard, Stderr: io.Discard}}
	pid := fmt.Sprintf("process id %d", first.cmd.Process.Pid)
	if err := a.run(t.Context(), y.args(n)); err == nil || !strings.Contains(err.Error(), x.dir) || !strings.Contains(err.Error(), pid) {
		t.Errorf("second daemon: %v", err)
	}
	if err := a.run(t.Context(), []string{"check", "--data", x.dir}); err == nil || !strings.Contains(err.Error(), pid) || !strings.Contains(err.Error(), "stop it first") {
		t.Errorf("check beside a daemon: %v", err)
	}
}

// child is a daemon in a process of its own.
type child struct {
	cmd    *exec.Cmd
	stderr *childLog
	done   chan error
}

// childLog has what a child has printed. It may be read while the child runs.
type childLog struct {
	mu sync.Mutex
	b  bytes.Buffer // mu guards
}

func (l *childLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *childLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func startChild(t *testing.T, args []string, environ ...string) *child {
	t.Helper()
	c := &child{cmd: exec.Command(os.Args[0], args...), stderr: &childLog{}, done: make(chan error, 1)}
	c.cmd.Env = slices.Concat(os.Environ(), []string{childVariable + "=1", "GORACE=atexit_sleep_ms=0"}, environ)
	c.cmd.Stdout, c.cmd.Stderr = c.stderr, c.stderr
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { c.done <- c.cmd.Wait() }()
	t.Cleanup(func() { _ = c.cmd.Process.Kill() })
	return c
}

// wait waits for a child that was signalled to end.
func (c *child) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-c.done:
		return err
	case <-time.After(time.Minute):
		return errors.New("does not stop within a minute")
	}
}

// TestDemoPortInUse: the demo names the port that another program uses, and the option that changes it,
// before it makes a network.
func TestDemoPortInUse(t *testing.T) {
	t.Parallel()
	l, err := simnet.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for option, other := range map[string]string{"--listen": "--admin", "--admin": "--listen"} {
		var out bytes.Buffer
		a := &app{Process: command.Process{Stdout: &out, Stderr: io.Discard, Exit: func(int) {}}}
		err := a.run(t.Context(), []string{"demo", other, "127.0.0.1:0", option, l.Addr().String()})
		if err == nil || !strings.Contains(err.Error(), option) || !strings.Contains(err.Error(), "another program uses port "+port) || out.Len() > 0 {
			t.Errorf("%v\n%s", err, &out)
		}
	}
}

// TestDemo runs the demo as CI does.
func TestDemo(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	a := &app{Process: command.Process{Stdout: &out, Stderr: io.Discard, Exit: func(int) {}}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := a.run(ctx, []string{"demo", "--exit", "--repos", "30", "--hosts", "3", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"PLC directory http://127.0.0.1:", "Generating and signing their repositories", "-d repo=user0.sim.test", `"state": "ok"`, "com.atproto.repo.getRecord", `"$type": "app.bsky.feed.post"`, `"records": [`, "signature", "/stats", `"synced":`, "websocat ws://", `"live": true`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the demo does not show %q:\n%s", want, &out)
		}
	}
}
