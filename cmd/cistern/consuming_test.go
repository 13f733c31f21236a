package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cistern/ingest/simnet"
)

// TestDocsConsuming runs each client of docs/consuming.md as it is printed, against a daemon. A
// language is left out if the machine does not have it, or not what the client needs of it.
func TestDocsConsuming(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program")
	}
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "consuming.md"))
	if err != nil {
		t.Fatal(err)
	}
	n := startNetwork(t, simnet.Options{Seed: 5, Repos: 6, Hosts: 1})
	x := newTestIndex(t)
	x.start(t, x.args(n, "--mode", "full", "--relay", n.Relays()[0].URL()))
	x.settle(t, map[string]int64{"synced": 6})
	want := 0
	for _, f := range x.replay(t) {
		if f.Record.Collection == "app.bsky.feed.post" {
			want++
		}
	}
	for _, p := range []printed{
		{"go", "main.go", []string{"go", "build", "-o"}, nil},
		{"ts", "client.ts", []string{"node", "--experimental-strip-types", "-e", "WebSocket"}, []string{"node", "--experimental-strip-types"}},
		{"python", "client.py", []string{"python3", "-c", "import websockets"}, []string{"python3", "-u"}},
	} {
		t.Run(p.fence, func(t *testing.T) {
			t.Parallel()
			wantPosts(t, p.program(t, string(page), strings.NewReplacer("127.0.0.1:2481", x.public)), want)
		})
	}
}

// printed is a program that a page of the documentation has.
type printed struct {
	fence, file string
	probe, run  []string // a command that fails if the machine cannot run it, and one that runs it
}

// program returns the command that runs the first such program of a page, with other addresses.
func (p printed) program(t *testing.T, page string, addresses *strings.Replacer) *exec.Cmd {
	t.Helper()
	_, rest, ok := strings.Cut(page, "```"+p.fence+"\n")
	code, _, ok2 := strings.Cut(rest, "```\n")
	changed := addresses.Replace(code)
	if !ok || !ok2 || changed == code {
		t.Fatal("the page has no such program, or it names another address")
	}
	file := filepath.Join(t.TempDir(), p.file)
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	run, probe := append(slices.Clone(p.run), file), p.probe
	if p.fence == "go" {
		// go run would leave the program behind when it is killed.
		run = []string{file + ".exe"}
		probe = append(slices.Clone(probe), run[0], file)
	}
	if out, err := exec.CommandContext(t.Context(), probe[0], probe[1:]...).CombinedOutput(); err != nil {
		if p.fence == "go" {
			t.Fatalf("%v: %s", err, out)
		}
		t.Skipf("%q: %v: %s", probe, err, out)
	}
	return exec.CommandContext(t.Context(), run[0], run[1:]...)
}

// TestDocsReceivers runs each receiver of docs/consuming.md as it is printed, with a webhook of a
// daemon, and counts the events that it prints.
func TestDocsReceivers(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program")
	}
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "consuming.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, page, _ := strings.Cut(string(text), "## A small receiver\n")
	n := startNetwork(t, simnet.Options{Seed: 6, Repos: 4, Hosts: 1})
	x := newTestIndex(t)
	x.start(t, x.args(n, "--mode", "full", "--relay", n.Relays()[0].URL()))
	x.settle(t, map[string]int64{"synced": 4})
	want := 0
	for _, f := range x.replay(t) {
		if f.Type != "repo" { // which are sent only on request
			want++
		}
	}
	secret := "whsec_" + strings.Repeat("QUJD", 8)
	for _, p := range []printed{
		{"go", "main.go", []string{"go", "build", "-o"}, nil},
		{"ts", "receiver.ts", []string{"node", "--experimental-strip-types", "-e", "0"}, []string{"node", "--experimental-strip-types"}},
		{"python", "receiver.py", []string{"python3", "-c", "import hmac, sys; sys.exit(sys.version_info < (3, 9))"}, []string{"python3", "-u"}},
	} {
		t.Run(p.fence, func(t *testing.T) {
			t.Parallel()
			address := freeAddress(t)
			_, port, _ := strings.Cut(address, ":")
			receiver := p.program(t, page, strings.NewReplacer("127.0.0.1:8080", address, "8080", port))
			receiver.Env = append(os.Environ(), "WEBHOOK_SECRET="+secret)
			begun := func(ctx context.Context) {
				awaitListener(ctx, address)
				status, answer := x.send(t, "PUT", "/subscriptions/"+p.fence, fmt.Sprintf(
					`{"start":"oldest","webhook":{"url":"http://%s/in","events":7,"secrets":[%q]}}`, address, secret))
				if status != 201 || strings.Contains(answer, secret) {
					t.Errorf("%d %s", status, answer)
				}
			}
			wantLines(t, receiver, want, begun, func(words []string) bool {
				return len(words) == 2 && slices.Contains([]string{"record", "account", "identity"}, words[1])
			})
			if _, answer := x.send(t, "GET", "/subscriptions/"+p.fence, ""); strings.Contains(answer, "QUJD") {
				t.Error(answer)
			}
		})
	}
}

// wantPosts runs a client until it has printed a number of creates.
func wantPosts(t *testing.T, client *exec.Cmd, want int) {
	t.Helper()
	wantLines(t, client, want, func(context.Context) {}, func(words []string) bool {
		return len(words) >= 3 && strings.HasPrefix(words[1], "did:") && words[2] == "create"
	})
}

// awaitListener waits until an address takes connections, or ctx ends.
func awaitListener(ctx context.Context, address string) {
	var dialer net.Dialer
	for ctx.Err() == nil {
		if c, err := dialer.DialContext(ctx, "tcp", address); err == nil {
			_ = c.Close()
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// wantLines runs a client until it has printed a number of good lines. begun is called once it runs,
// with a context that ends with the client, which is killed if it prints nothing for two minutes.
func wantLines(t *testing.T, client *exec.Cmd, want int, begun func(context.Context), good func(words []string) bool) {
	t.Helper()
	var problems strings.Builder
	client.Stderr = &problems
	out, err := client.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	const silence = 2 * time.Minute
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stop := time.AfterFunc(silence, func() { cancel(); _ = client.Process.Kill() })
	defer stop.Stop()
	begun(ctx)
	got := 0
	for lines := bufio.NewScanner(out); got < want && lines.Scan(); {
		stop.Reset(silence)
		if !good(strings.Fields(lines.Text())) {
			t.Errorf("it printed %q", lines.Text())
		}
		got++
	}
	_ = client.Process.Kill()
	_ = client.Wait() // killed
	if got != want {
		t.Errorf("%d lines, want %d: %s", got, want, &problems)
	}
}
