package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
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
	for _, client := range []struct {
		fence, file string
		probe, run  []string
	}{
		{"go", "main.go", []string{"go", "build", "-o"}, nil},
		{"ts", "client.ts", []string{"node", "--experimental-strip-types", "-e", "WebSocket"}, []string{"node", "--experimental-strip-types"}},
		{"python", "client.py", []string{"python3", "-c", "import websockets"}, []string{"python3", "-u"}},
	} {
		t.Run(client.fence, func(t *testing.T) {
			t.Parallel()
			_, rest, ok := strings.Cut(string(page), "```"+client.fence+"\n")
			code, _, ok2 := strings.Cut(rest, "```\n")
			if code = strings.ReplaceAll(code, "127.0.0.1:2481", x.public); !ok || !ok2 || !strings.Contains(code, x.public) {
				t.Fatal("the page has no such client, or it follows another daemon")
			}
			file := filepath.Join(t.TempDir(), client.file)
			if err := os.WriteFile(file, []byte(code), 0o600); err != nil {
				t.Fatal(err)
			}
			program := append(client.run, file)
			if client.fence == "go" {
				// go run would leave the client behind when it is killed.
				program = []string{file + ".exe"}
				client.probe = append(client.probe, program[0], file)
			}
			if out, err := exec.CommandContext(t.Context(), client.probe[0], client.probe[1:]...).CombinedOutput(); err != nil {
				if client.fence == "go" {
					t.Fatalf("%v: %s", err, out)
				}
				t.Skipf("%q: %v: %s", client.probe, err, out)
			}
			wantPosts(t, exec.CommandContext(t.Context(), program[0], program[1:]...), want)
		})
	}
}

// wantPosts runs a client until it has printed a number of creates.
func wantPosts(t *testing.T, client *exec.Cmd, want int) {
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
	stop := time.AfterFunc(2*time.Minute, func() { _ = client.Process.Kill() })
	defer stop.Stop()
	got := 0
	for lines := bufio.NewScanner(out); got < want && lines.Scan(); {
		if words := strings.Fields(lines.Text()); len(words) < 3 || !strings.HasPrefix(words[1], "did:") || words[2] != "create" {
			t.Errorf("it printed %q", lines.Text())
		}
		got++
	}
	_ = client.Process.Kill()
	_ = client.Wait() // killed
	if got != want {
		t.Errorf("%d posts, want %d: %s", got, want, &problems)
	}
}
