package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/console"
	"cistern/ingest/simnet"
)

// slowBucket is a bucket that can be held: files of a store and CARs are then not sent, and objects
// of more than 1 KiB not taken, so that a command that needs them shows its progress for as long as a test looks at it.
type slowBucket struct {
	environ []string

	mu   sync.Mutex
	gate chan struct{} // mu guards; closed: not held
}

// hold has requests wait until release.
func (b *slowBucket) hold() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gate = make(chan struct{})
}

func (b *slowBucket) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-b.gate:
	default:
		close(b.gate)
	}
}

// pass returns when the bucket is not held.
func (b *slowBucket) pass() {
	b.mu.Lock()
	gate := b.gate
	b.mu.Unlock()
	<-gate
}

// content reports whether an object is a file of a store or a CAR.
func content(path string) bool {
	return strings.Contains(path, "/tables/") || strings.HasSuffix(path, ".car")
}

func newSlowBucket(t *testing.T) *slowBucket {
	t.Helper()
	environ := bucket(t)
	target, err := url.Parse(strings.TrimPrefix(environ[2], "AWS_ENDPOINT_URL="))
	if err != nil {
		t.Fatal(err)
	}
	b := &slowBucket{gate: make(chan struct{})}
	b.release()
	proxy := &httputil.ReverseProxy{ErrorLog: log.New(io.Discard, "", 0),
		// The signature of a request is for the host that the client has asked.
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host },
		ModifyResponse: func(res *http.Response) error {
			if res.Request.Method == http.MethodGet && content(res.Request.URL.Path) {
				b.pass()
			}
			return nil
		},
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && r.ContentLength > 1<<10 {
			b.pass()
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	t.Cleanup(b.release)
	b.environ = []string{environ[0], environ[1], "AWS_ENDPOINT_URL=" + srv.URL}
	return b
}

// holdVariable names a file: while it exists, check does not go on in a child that ships.
const holdVariable = "CISTERNTEST_HOLD"

// holdWhile returns a hook of check that waits in the middle of the work while a file exists. It
// returns nil if no file is named.
func holdWhile(file string) func(console.Work) {
	if file == "" {
		return nil
	}
	return func(w console.Work) {
		for err := error(nil); err == nil && w.Done > w.Total/3; time.Sleep(20 * time.Millisecond) {
			_, err = os.Stat(file)
		}
	}
}

// maintenanceStub answers as a daemon whose maintenance stands still while a run is held.
type maintenanceStub struct{ bucket *slowBucket }

func (m maintenanceStub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		m.bucket.pass()
		fmt.Fprintln(w, `{"name":"verify","result":"done"}`)
		return
	}
	fmt.Fprintln(w, `{"operations":[{"name":"verify","state":"running","progress":{"done":400,"total":1000,"item":"repositories"}}]}`)
}

// masks replace what differs from run to run: numbers, names of files, and how far a bar is. The
// colours of a bar are part of its name.
var masks = []struct {
	of *regexp.Regexp
	by string
}{
	{regexp.MustCompile(`\x1b\[32m`), "[green]"},
	{regexp.MustCompile(`\x1b\[2m`), "[dim]"},
	{regexp.MustCompile(`(\x1b\[(0|39|49)m|\x0f)+`), "[plain]"},
	{regexp.MustCompile(`\[green\]━+((\[dim\])?\[plain\]─+)?\[plain\]|\[dim\]─+\[plain\]`), "COLOURED BAR"},
	{regexp.MustCompile(`━+─*|─+`), "BAR"},
	{regexp.MustCompile(`[0-9]{8}T[0-9]{6}[0-9.]*Z(-[0-9a-f]+)?`), "NAME"},
	{regexp.MustCompile(`[0-9][0-9,.]*( [KMG]?i?B)?`), "N"},
	{regexp.MustCompile(`  N[hmsN]+ left`), ""},
	{regexp.MustCompile(`(of N files?).*`), "$1  FILE"},
	{regexp.MustCompile(`\S*…`), "…"}, // where a word is cut depends on the digits before it
}

func masked(screen string) string {
	for _, m := range masks {
		screen = m.of.ReplaceAllString(screen, m.by)
	}
	return screen
}

// progressRow is a long command, and what its progress shows when it is held.
type progressRow struct{ name, script, shows string }

// progressWorld has what long commands work on.
type progressWorld struct {
	t       *testing.T
	bucket  *slowBucket
	environ []string
	dir     string
	runs    int
}

// unused returns a script with a destination of its own: a run that is killed leaves its lock.
func (w *progressWorld) unused(script string) string {
	w.runs++
	return strings.ReplaceAll(script, "UNUSED", fmt.Sprint(w.runs))
}

// TestProgressScreen shows the progress of long commands in terminals of two widths, with colours
// and with NO_COLOR, and without a terminal, where the whole output is compared.
func TestProgressScreen(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 72, Repos: 12, Hosts: 1})
	x := newTestIndex(t)
	stop := x.start(t, x.args(n, "--mode", "full", "--relay", n.Relay(), "--backlinks"))
	x.settle(t, map[string]int64{"synced": active(n.Accounts())})
	w := &progressWorld{t: t, bucket: newSlowBucket(t), dir: t.TempDir()}
	for _, args := range [][]string{{"backup", "s3://backups/b"}, {"export", "s3://backups/cars", "--format", "car"}} {
		if out, err := x.command(t.Context(), w.bucket.environ, args...); err != nil {
			t.Fatalf("%s: %v\n%s", args, err, out)
		}
	}
	idle := filepath.Join(w.dir, "idle")
	if out, err := x.command(t.Context(), w.bucket.environ, "restore", "s3://backups/b", "--data", idle); err != nil {
		t.Fatalf("restore: %v\n%s", err, out)
	}
	held := filepath.Join(w.dir, "held")
	if err := os.WriteFile(held, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.bucket.hold()
	stub := httptest.NewServer(maintenanceStub{w.bucket})
	t.Cleanup(stub.Close)
	t.Cleanup(w.bucket.release)
	w.environ = append([]string{"CISTERN_ADMIN=" + x.admin, holdVariable + "=" + held}, w.bucket.environ...)
	rows := []progressRow{
		{"backup", "cistern backup s3://backups/UNUSED", "files"},
		{"verify", "cistern backup verify s3://backups/b", "files"},
		{"restore", "cistern restore s3://backups/b --data " + w.dir + "/restored-UNUSED", "files"},
		{"export", "cistern export s3://backups/UNUSED", "parts"},
		{"import", "cistern import s3://backups/cars --plc " + n.PLC() + " --allow-private --data " + w.dir + "/imported-UNUSED", "repositories"},
		{"check", "cp -r " + idle + " " + w.dir + "/checked-UNUSED && cistern check --data " + w.dir + "/checked-UNUSED", "repositories"},
		{"maintain", "cistern maintain run verify --admin " + stub.URL, "running"},
	}
	for _, row := range rows {
		for _, columns := range []int{80, 160} {
			w.screens(row, columns)
		}
	}
	w.piped(rows, held)
	stop()
}

// screens compares what a terminal shows while the command is held.
func (w *progressWorld) screens(row progressRow, columns int) {
	name := fmt.Sprintf("progress_%s_%d", row.name, columns)
	term := newTerminal(w.t, columns, 10, w.unused(row.script), w.environ...)
	term.await(row.shows)
	coloured := term.screen(true)
	goldenScreen(w.t, name+"_colours", w.masked(coloured))
	if !strings.Contains(coloured, "\x1b[") && strings.ContainsAny(coloured, "━─") {
		w.t.Errorf("%s has no colours: %q", row.name, coloured)
	}
	term.tmux("kill-server")
	term = newTerminal(w.t, columns, 10, w.unused(row.script), append(w.environ, "NO_COLOR=1")...)
	term.await(row.shows)
	plain := term.screen(true)
	if strings.Contains(plain, "\x1b[") {
		w.t.Errorf("%s: NO_COLOR is set, and there are colours:\n%q", row.name, plain)
	}
	goldenScreen(w.t, name, w.masked(plain))
	term.tmux("kill-server")
}

// masked masks the directory of the test too.
func (w *progressWorld) masked(screen string) string {
	return masked(strings.ReplaceAll(screen, w.dir, "DIR"))
}

// piped runs all commands at once, as a line without a terminal comes after ten seconds. It waits for
// the line of each, lets them end, and compares what they have printed. A command that takes long
// prints its line again.
func (w *progressWorld) piped(rows []progressRow, held string) {
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	outputs, cmds := make([]*childLog, len(rows)), make([]*exec.Cmd, len(rows))
	for i, row := range rows {
		outputs[i] = new(childLog)
		cmd := exec.Command("sh", "-c", strings.ReplaceAll(w.unused(row.script), "cistern", self)+" && echo succeeded || echo failed $?")
		cmd.Env = append(os.Environ(), append(w.environ, childAsShips, "TERM=xterm")...)
		cmd.Stdout, cmd.Stderr = outputs[i], outputs[i]
		if err := cmd.Start(); err != nil {
			w.t.Fatal(err)
		}
		cmds[i] = cmd
		w.t.Cleanup(func() { _ = cmd.Process.Kill() })
	}
	for i, row := range rows {
		for begun := time.Now(); !strings.Contains(outputs[i].String(), row.shows); time.Sleep(20 * time.Millisecond) {
			if time.Since(begun) > time.Minute {
				w.t.Fatalf("%s prints no line without a terminal: %q", row.name, outputs[i].String())
			}
		}
	}
	w.bucket.release()
	if err := os.Remove(held); err != nil {
		w.t.Fatal(err)
	}
	for i, row := range rows {
		_ = cmds[i].Wait() // the output has the exit code
		lines := slices.Compact(strings.Split(w.masked(outputs[i].String()), "\n"))
		goldenScreen(w.t, "progress_"+row.name+"_pipe", strings.Join(lines, "\n"))
	}
}
