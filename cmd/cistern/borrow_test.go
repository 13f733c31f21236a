package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"cistern/ingest/simnet"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// copyRow is a copy as GET /copies shows it.
type copyRow struct {
	Kind, Destination       string
	Running                 int
	Since, Ended, Succeeded string
	Generation              string
	Bytes                   int64
	Seconds                 float64
	Error                   string
	Failures                int
}

func (x *testIndex) copies(t *testing.T) []copyRow {
	t.Helper()
	var answer struct{ Copies []copyRow }
	if err := x.call(t.Context(), "GET", "/copies", nil, func(b []byte) error { return json.Unmarshal(b, &answer) }); err != nil {
		t.Fatal(err)
	}
	return answer.Copies
}

// stalled starts a service that accepts requests and answers none. begun is closed by the first one.
func stalled(t *testing.T) (environ []string, begun chan struct{}) {
	t.Helper()
	begun = make(chan struct{})
	var once sync.Once
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the server sees the end of a request only then
		once.Do(func() { close(begun) })
		<-r.Context().Done()
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.Start()
	t.Cleanup(srv.Close)
	return []string{"AWS_ACCESS_KEY_ID=id", "AWS_SECRET_ACCESS_KEY=hunter22", "AWS_ENDPOINT_URL=" + srv.URL}, begun
}

// TestCopiesOfCommands: the daemon knows what 'cistern backup' and 'cistern export' made, what failed
// and what was interrupted, also after a restart.
func TestCopiesOfCommands(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 3, Repos: 3})
	x, dir := newTestIndex(t), t.TempDir()
	args := x.args(n)
	stop := x.start(t, args)
	x.track(t, n.Accounts()...)
	x.settle(t, map[string]int64{"synced": 3})
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	must := func(args ...string) string {
		t.Helper()
		out, err := x.command(t.Context(), nil, args...)
		if err != nil || strings.Contains(out, "warning") {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return out
	}
	must("backup", filepath.Join(dir, "backups"))
	must("export", filepath.Join(dir, "records"))
	must("export", filepath.Join(dir, "cars.tar"), "--format", "car")
	_, failed := x.command(t.Context(), nil, "backup", filepath.Join(file, "below"))
	if failed == nil {
		t.Fatal("a backup below a file is made")
	}
	environ, begun := stalled(t)
	ctx, interrupt := context.WithCancel(t.Context())
	interrupted := make(chan string, 1)
	go func() {
		out, err := x.command(ctx, environ, "backup", "s3://backups/a")
		interrupted <- fmt.Sprint(out, err)
	}()
	<-begun
	if all := x.copies(t); len(all) == 0 || all[0].Destination != "s3://backups/a" || all[0].Running != 1 || all[0].Since == "" {
		t.Errorf("a backup under way: %+v", all)
	}
	interrupt()
	if out := <-interrupted; strings.Contains(out, "warning") {
		t.Errorf("an interrupted backup printed %s", out)
	}

	var generation struct{ Name string }
	if err := json.Unmarshal([]byte(must("backup", "ls", filepath.Join(dir, "backups"), "--json")), &generation); err != nil {
		t.Fatal(err)
	}
	want := []copyRow{
		{Kind: "backup", Destination: "s3://backups/a", Failures: 1},
		{Kind: "backup", Destination: filepath.Join(file, "below"), Error: strings.ReplaceAll(failed.Error(), "\n", "; "), Failures: 1},
		{Kind: "backup", Destination: filepath.Join(dir, "backups"), Generation: generation.Name},
		{Kind: "export", Destination: filepath.Join(dir, "cars.tar")},
		{Kind: "export", Destination: filepath.Join(dir, "records")},
	}
	is := func() {
		t.Helper()
		all := x.copies(t)
		if len(all) == 0 || !strings.HasPrefix(all[0].Error, "interrupted: ") {
			t.Fatalf("copies %+v", all)
		}
		all[0].Error = ""
		if diff := cmp.Diff(want, all, cmpopts.IgnoreFields(copyRow{}, "Ended", "Succeeded", "Bytes", "Seconds")); diff != "" {
			t.Error(diff)
		}
		for _, c := range all {
			if done := c.Failures == 0; c.Ended == "" || (c.Succeeded != "") != done || (c.Bytes > 0) != done {
				t.Errorf("%+v", c)
			}
		}
	}
	is()
	x.noCheckpoints(t)
	stop()
	x.start(t, args)
	is()
	out, _ := x.command(t.Context(), nil, "status")
	for _, want := range []string{", by command to " + filepath.Join(dir, "backups") + "\n", "no complete copy, by command to s3://backups/a\n",
		": interrupted: ", ", to " + filepath.Join(dir, "cars.tar") + "\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// TestBorrowOfOlder: with a daemon that records no results, a backup is made and one warning printed.
func TestBorrowOfOlder(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 3, Repos: 1})
	x := newTestIndex(t)
	x.start(t, x.args(n))
	older := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/checkpoint" {
			http.NotFound(w, r)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		req, err := http.NewRequestWithContext(r.Context(), "POST", "http://"+x.admin+"/checkpoint", http.NoBody)
		if err != nil {
			t.Error(err)
			return
		}
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Error(err)
			return
		}
		defer res.Body.Close()
		line := make([]byte, 4096)
		size, err := res.Body.Read(line)
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(line[:size])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(older.Close)
	out, err := x.command(t.Context(), nil, "backup", filepath.Join(t.TempDir(), "b"), "--admin", older.URL)
	if err != nil || !strings.Contains(out, "backup 20") || strings.Count(out, "warning") != 1 || !strings.Contains(out, "records no results") {
		t.Errorf("%v\n%s", err, out)
	}
	if all := x.copies(t); len(all) > 0 {
		t.Errorf("copies %+v", all)
	}
}
