package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"cistern/ingest/simnet"
)

// slowBucket is a bucket that can be held: files of a store and CARs are then not sent, and objects
// of more than 1 KiB not taken, so that a command that needs them shows its progress for as long as a test looks at it.
type slowBucket struct {
	environ []string
	held    atomic.Bool
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
	b := &slowBucket{}
	ended := make(chan struct{})
	proxy := &httputil.ReverseProxy{ErrorLog: log.New(io.Discard, "", 0),
		// The signature of a request is for the host that the client has asked.
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host },
		ModifyResponse: func(res *http.Response) error {
			if b.held.Load() && res.Request.Method == http.MethodGet && content(res.Request.URL.Path) {
				<-ended
			}
			return nil
		},
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if b.held.Load() && r.Method == http.MethodPut && r.ContentLength > 1<<10 {
			<-ended
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	t.Cleanup(func() { close(ended) })
	b.environ = []string{environ[0], environ[1], "AWS_ENDPOINT_URL=" + srv.URL}
	return b
}

// masks replace what differs from run to run: numbers, names of files, and how far a bar is.
var masks = []struct {
	of *regexp.Regexp
	by string
}{
	{regexp.MustCompile(`\x1b\[[0-9;]*m`), ""},
	{regexp.MustCompile(`[━─]+`), "BAR"},
	{regexp.MustCompile(`[0-9][0-9,.]*( [KMG]?i?B)?`), "N"},
	{regexp.MustCompile(`  N[hmsN]+ left`), ""},
	{regexp.MustCompile(`of N files?.*`), "of N files  FILE"},
}

func masked(screen string) string {
	for _, m := range masks {
		screen = m.of.ReplaceAllString(screen, m.by)
	}
	return screen
}

// TestProgressScreen shows the progress of long commands in terminals of two widths, with colours
// and without.
func TestProgressScreen(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 72, Repos: 12, Hosts: 1})
	x := newTestIndex(t)
	stop := x.start(t, x.args(n, "--mode", "full", "--relay", n.Relay()))
	x.settle(t, map[string]int64{"synced": active(n.Accounts())})
	b := newSlowBucket(t)
	for _, args := range [][]string{{"backup", "s3://backups/b"}, {"export", "s3://backups/cars", "--format", "car"}} {
		if out, err := x.command(t.Context(), b.environ, args...); err != nil {
			t.Fatalf("%s: %v\n%s", args, err, out)
		}
	}
	b.held.Store(true)
	dir, runs := t.TempDir(), 0
	// unused returns a script with a destination of its own: a run that is killed leaves its lock.
	unused := func(script string) string {
		runs++
		return strings.ReplaceAll(script, "UNUSED", fmt.Sprint(runs))
	}
	environ := append([]string{"CISTERN_ADMIN=" + x.admin}, b.environ...)
	for _, row := range []struct{ name, script, shows string }{
		{"backup", "cistern backup s3://backups/UNUSED", "files"},
		{"verify", "cistern backup verify s3://backups/b", "files"},
		{"restore", "cistern restore s3://backups/b --data " + filepath.Join(dir, "restored-UNUSED"), "files"},
		{"export", "cistern export s3://backups/UNUSED", "parts"},
		{"import", "cistern import s3://backups/cars --plc " + n.PLC() + " --allow-private --data " + filepath.Join(dir, "imported-UNUSED"), "repositories"},
	} {
		for _, columns := range []int{80, 160} {
			term := newTerminal(t, columns, 10, unused(row.script), environ...)
			term.await(row.shows)
			screen := term.screen(false)
			goldenScreen(t, fmt.Sprintf("progress_%s_%d", row.name, columns), masked(screen))
			if coloured := term.screen(true); strings.Contains(screen, "━") && !strings.Contains(coloured, "\x1b[") {
				t.Errorf("%s has no colours: %q", row.name, coloured)
			}
			term.tmux("kill-server")
		}
		term := newTerminal(t, 80, 10, unused(row.script), append(environ, "NO_COLOR=1")...)
		if screen := term.await(row.shows); strings.Contains(term.screen(true), "\x1b[") {
			t.Errorf("%s: NO_COLOR is set, and there are colours:\n%q", row.name, screen)
		}
		term.tmux("kill-server")
	}
	b.held.Store(false)
	stop()
}
