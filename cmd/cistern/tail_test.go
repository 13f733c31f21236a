package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"

	"cistern/cmd/cistern/command"
	"cistern/ingest/simnet"
)

// tailOf runs cistern tail on an index.
func (x *testIndex) tailOf(ctx context.Context, out io.Writer, args ...string) error {
	a := &app{Process: command.Process{Stdout: out, Stderr: io.Discard}}
	return a.run(ctx, append([]string{"tail", "--url", x.public}, args...))
}

// startTailed starts a daemon that has indexed a small network, and starts it again after stop.
func startTailed(t *testing.T) (n *simnet.Network, x *testIndex, stop, again func()) {
	n = startNetwork(t, simnet.Options{Seed: 5, Repos: 6, Hosts: 1})
	x = newTestIndex(t)
	again = func() {
		t.Helper()
		stop = x.start(t, x.args(n, "--mode", "full", "--relay", n.Relays()[0].URL()))
		x.settle(t, map[string]int64{"synced": 6})
		x.follow(t, n.Relays()...)
	}
	again()
	return n, x, stop, again
}

// TestTail reads the log of a daemon up to its head, as JSON lines and for a person, and a part.
func TestTail(t *testing.T) {
	t.Parallel()
	n, x, _, _ := startTailed(t)
	did := n.DIDs()[0]
	all, repos := "", ""
	for _, f := range x.replay(t) {
		if f.Type == "repo" {
			repos += string(f.raw) + "\n"
			continue
		}
		all += string(f.raw) + "\n"
	}
	tail := func(args ...string) string {
		t.Helper()
		var out bytes.Buffer
		if err := x.tailOf(t.Context(), &out, args...); err != nil {
			t.Errorf("tail %q: %v", args, err)
		}
		return out.String()
	}
	if got := tail("--json", "--follow=false"); got != all {
		t.Errorf("the JSON lines are not as the daemon sends them:\n%.500s\n%.500s", got, all)
	}
	if got := tail("--json", "--follow=false", "--kind", "repo"); got != repos || strings.Count(got, `"state":"synced"`) != 6 {
		t.Errorf("the repo events are %s", got)
	}
	if got := strings.Count(tail("--follow=false"), "\n"); got != strings.Count(all, "\n") {
		t.Errorf("%d lines", got)
	}
	if got, want := tail("--json", "--limit", "3", "--cursor", "2"), strings.Join(strings.SplitAfter(all, "\n")[1:4], ""); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if tail("--json", "--follow=false", "--since", "1h") != all || tail("--follow=false", "--since", "2100-01-02T00:00:00Z") != "" {
		t.Error("--since begins at the wrong event")
	}
	mine := tail("--json", "--follow=false", "--did", did, "--kind", "record", "--action", "create", "--historical", "--collection", "app.bsky.*")
	for line := range strings.Lines(mine) {
		if !strings.Contains(line, did) || !strings.Contains(line, `"live":false`) || !strings.Contains(line, `"action":"create"`) || !strings.Contains(line, `"collection":"app.bsky.`) {
			t.Errorf("the filter let through %s", line)
		}
	}
	if mine == "" || tail("--follow=false", "--kind", "record", "--action", "delete") != "" {
		t.Error("the filter wants the wrong events")
	}
	for name, row := range map[string]struct{ from, to error }{
		"a reader that has gone": {syscall.EPIPE, nil},
		"a full disk":            {syscall.ENOSPC, syscall.ENOSPC},
	} {
		w := writerFunc(func([]byte) (int, error) { return 0, row.from })
		if err := x.tailOf(t.Context(), w, "--cursor", "0"); !errors.Is(err, row.to) {
			t.Errorf("%s: %v", name, err)
		}
	}
	err := x.tailOf(t.Context(), io.Discard, "--cursor", "99999999")
	if err == nil || !strings.Contains(err.Error(), "FutureCursor") {
		t.Errorf("a cursor of the future: %v", err)
	}
}

// TestTailFollows follows a daemon through a restart. The end of the context is no error.
func TestTailFollows(t *testing.T) {
	t.Parallel()
	n, x, stop, again := startTailed(t)
	head := x.head(t)
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- x.tailOf(ctx, w, "--json") }()
	x.await(t, "the stream", func() error { return x.wantSubscribers(t, 1) })
	write := func() {
		t.Helper()
		if _, err := n.Accounts()[1].Mutate(1); err != nil {
			t.Fatal(err)
		}
	}
	lines := newLineReader(r)
	write()
	if got := lines(); !strings.HasPrefix(got, fmt.Sprintf(`{"id":%d,`, head+1)) || !strings.Contains(got, `"live":true`) {
		t.Errorf("the next event is %s", got)
	}
	stop()
	again()
	write()
	if got := lines(); !strings.HasPrefix(got, fmt.Sprintf(`{"id":%d,`, head+2)) {
		t.Errorf("after a restart of the daemon, the next event is %s", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestTailMistakes needs no daemon.
func TestTailMistakes(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"no daemon answers":                  {"--url", freeAddress(t)},
		"--url \"nowhere\"":                  {"--url", "nowhere"},
		"want one of record":                 {"--kind", "odd"},
		"did you mean --collection?":         {"--colection", "a.b.c"},
		"either --cursor or":                 {"--cursor", "1", "--since", "1h"},
		"an age like 90m":                    {"--since", "yesterday"},
		"either --live or --historical":      {"--live", "--historical"},
		"2 mistakes:\n  --did \"x\": want a": {"--did", "x", "--limit", "0"},
	} {
		err := (&app{Process: command.Process{Stdout: io.Discard, Stderr: io.Discard}}).run(t.Context(), append([]string{"tail"}, args...))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("tail %q: %v, want %s", args, err, want)
		}
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// newLineReader returns a function that reads the next line.
func newLineReader(r io.Reader) func() string {
	lines := bufio.NewReader(r)
	return func() string {
		line, err := lines.ReadString('\n')
		return line + fmt.Sprint(err)
	}
}

// wantSubscribers returns an error unless the daemon has n streams open.
func (x *testIndex) wantSubscribers(t *testing.T, n int) error {
	_, metrics := x.send(t, "GET", "/metrics", "")
	if !strings.Contains(metrics, fmt.Sprintf("\ncistern_api_subscribers %d\n", n)) {
		return errors.New("not so many streams")
	}
	return nil
}
