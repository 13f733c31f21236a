package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cistern/backup"
	"cistern/cmd/cistern/command"
	"cistern/ingest/simnet"
	"cistern/objects"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/gorilla/websocket"
	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"golang.org/x/sync/errgroup"
)

// bucket starts a service with the API of S3, and returns the variables for its use.
func bucket(t *testing.T) (environ []string) {
	t.Helper()
	mem := s3mem.New()
	if err := mem.CreateBucket("backups"); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(gofakes3.New(mem).Server())
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.Start()
	t.Cleanup(srv.Close)
	return []string{"AWS_ACCESS_KEY_ID=id", "AWS_SECRET_ACCESS_KEY=hunter22", "AWS_ENDPOINT_URL=" + srv.URL}
}

// command runs a command for the daemon, and returns what it printed.
func (x *testIndex) command(ctx context.Context, environ []string, args ...string) (string, error) {
	var out bytes.Buffer
	a := &app{Process: command.Process{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &out, Environ: append([]string{"CISTERN_ADMIN=" + x.admin}, environ...)}}
	err := a.run(ctx, args)
	return out.String(), err
}

// TestBackupCommands backs up a daemon, lists, verifies and restores.
func TestBackupCommands(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 3, Repos: 12, Hosts: 2})
	x := newTestIndex(t)
	x.start(t, x.args(n))
	x.track(t, n.Accounts()...)
	x.settle(t, map[string]int64{"synced": 12})
	environ := bucket(t)
	for _, at := range []string{filepath.Join(t.TempDir(), "backups"), "s3://backups/cistern"} {
		data := filepath.Join(t.TempDir(), "restored")
		missing := filepath.Join(t.TempDir(), "missing")
		if filepath.IsAbs(at) {
			if err := os.Mkdir(at, 0o777); err != nil {
				t.Fatal(err)
			}
		}
		for _, step := range []struct {
			args  []string
			want  []string // in the output
			fails string   // in the error
		}{
			{[]string{"backup", "ls", missing}, nil, missing + " cannot be read: no such file or directory"},
			{[]string{"backup", "verify", missing}, nil, missing + " cannot be read"},
			{[]string{"restore", missing, "--data", data}, nil, missing + " cannot be read"},
			{[]string{"backup", "ls", at}, []string{"no backups"}, ""},
			{[]string{"backup", "verify", at}, nil, "has no complete backup"},
			{[]string{"restore", at, "--data", data}, nil, "has no complete backup"},
			{[]string{"backup", at}, []string{"backup 20", "stored"}, ""},
			{[]string{"backup", at, "--keep", "2"}, []string{"file"}, ""},
			{[]string{"backup", "--keep", "2", at}, []string{"1 older backup deleted"}, ""},
			{[]string{"backup", at, "--json"}, []string{`{"name":"20`, `"epoch":"`}, ""},
			{[]string{"backup", "ls", at}, []string{"NAME ", "HEAD ", "20"}, ""},
			{[]string{"backup", "ls", at, "--json"}, []string{`{"name":"20`}, ""},
			{[]string{"backup", "verify", at}, []string{"3 backups", "no difference; the newest was made at 20"}, ""},
			{[]string{"backup", "verify", at, "--generation", "x"}, nil, `generation "x"`},
			{[]string{"restore", at, "--data", x.dir}, nil, "is not empty"},
			{[]string{"restore", at, "--data", data}, []string{"restored 20", "head "}, ""},
			{[]string{"check", "--data", data}, []string{"12 repositories", "no differences"}, ""},
			{[]string{"backup", at, "--keep", "-1"}, nil, `--keep "-1"`},
			{[]string{"backup", at, at}, nil, "takes DEST, got 2 arguments"},
			{[]string{"backup", at, "--admin", "127.0.0.1:1"}, nil, "no daemon answers"},
			{[]string{"backup", "backups"}, nil, "such as ./backups"},
			{[]string{"backup", "ls", "backups"}, nil, "such as ./backups"},
			{[]string{"backup", "gs://backups/x"}, nil, `"gs"`},
			{[]string{"backup", "s3://none-of-that-name/x"}, nil, "NoSuchBucket"},
		} {
			out, err := x.command(t.Context(), environ, step.args...)
			if step.fails == "" && err != nil || step.fails != "" && (err == nil || !strings.Contains(err.Error(), step.fails)) {
				t.Errorf("%v: %v, want %q", step.args, err, step.fails)
			}
			for _, want := range step.want {
				if !strings.Contains(out, want) {
					t.Errorf("%v printed %q, want %q", step.args, out, want)
				}
			}
			if strings.Contains(fmt.Sprint(out, err), "hunter22") {
				t.Errorf("%v shows the secret", step.args)
			}
		}
	}
	x.noCheckpoints(t)
}

// noCheckpoints waits until the daemon has removed its checkpoints.
func (x *testIndex) noCheckpoints(t *testing.T) {
	t.Helper()
	x.await(t, "the checkpoints to be removed", func() error {
		left, err := filepath.Glob(filepath.Join(x.dir, "checkpoints", "*"))
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("left %v", left)
		}
		return err
	})
}

// TestBackupKilled ends the request of a backup that was killed: the daemon removes the checkpoint.
// A request that a web page could make gets none.
func TestBackupKilled(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 3, Repos: 2})
	x := newTestIndex(t)
	stop := x.start(t, x.args(n))
	if status, answer := x.send(t, "GET", "/checkpoint", ""); status != 405 {
		t.Errorf("GET: %d %s", status, answer)
	}
	var lives []context.CancelFunc
	var all errgroup.Group
	for range 4 {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		lives = append(lives, cancel)
		begun := make(chan struct{})
		all.Go(func() error { return x.hold(ctx, begun) })
		<-begun
	}
	if _, err := x.command(t.Context(), nil, "backup", filepath.Join(t.TempDir(), "b")); err == nil ||
		!strings.Contains(err.Error(), "too many checkpoints") {
		t.Errorf("a fifth checkpoint: %v", err)
	}
	for _, end := range lives[1:] {
		end()
	}
	x.await(t, "three checkpoints to be removed", func() error {
		left, err := filepath.Glob(filepath.Join(x.dir, "checkpoints", "*"))
		if err == nil && len(left) != 1 {
			err = fmt.Errorf("left %v", left)
		}
		return err
	})
	stop() // the daemon does not wait for the last one
	_ = all.Wait()
	x.noCheckpoints(t)
}

// hold keeps a checkpoint until ctx ends. begun is closed when the daemon has answered.
func (x *testIndex) hold(ctx context.Context, begun chan struct{}) error {
	req, err := http.NewRequestWithContext(ctx, "POST", "http://"+x.admin+"/checkpoint", http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	close(begun)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return err
}

// TestBackupSchedule: a daemon makes backups by itself, and keeps some.
func TestBackupSchedule(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 3, Repos: 2})
	x, to := newTestIndex(t), filepath.Join(t.TempDir(), "backups")
	x.start(t, x.args(n, "--backup", to, "--backup-every", "1s", "--backup-keep", "2"))
	d, first := objects.NewDirectory(to), ""
	x.await(t, "the first backup to be deleted", func() error {
		all, err := backup.List(t.Context(), d)
		if err != nil || len(all) == 0 {
			return fmt.Errorf("%d backups, %w", len(all), err)
		}
		if first == "" {
			first = all[0].Name
		}
		if len(all) != 2 || all[0].Name == first {
			return fmt.Errorf("%d backups, the last is %s", len(all), all[len(all)-1].Name)
		}
		return nil
	})
	err := x.call(t.Context(), "GET", "/metrics", nil, func(b []byte) error {
		for _, want := range []string{"last_success_timestamp_seconds 1.", "duration_seconds ", "uploaded_bytes_total ",
			"failures_total 0"} {
			if !bytes.Contains(b, []byte("\ncistern_backup_"+want)) {
				t.Errorf("no metric cistern_backup_%s", want)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestBackupRestart: a restart of a daemon adds no backup, 'cistern maintain run backup' does, and the
// next one is due one period after the newest.
func TestBackupRestart(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 3, Repos: 2})
	x, to := newTestIndex(t), filepath.Join(t.TempDir(), "backups")
	d := objects.NewDirectory(to)
	args := x.args(n, "--backup", to, "--backup-every", "1h")
	for i, want := range []int{1, 1, 2} {
		stop := x.start(t, args)
		if i == 2 {
			if out, err := x.command(t.Context(), nil, "maintain", "run", "backup"); err != nil || !strings.Contains(out, "backup done") {
				t.Errorf("%s: %v", out, err)
			}
		}
		x.await(t, "the backup to be done", func() error { return x.backedUp(t, d, want) })
		stop()
	}
}

// backedUp returns an error unless so many backups exist, and the next one is due an hour after the
// newest.
func (x *testIndex) backedUp(t *testing.T, d objects.Destination, want int) error {
	all, err := backup.List(t.Context(), d)
	if err != nil || len(all) != want {
		return fmt.Errorf("%d backups, want %d, %w", len(all), want, err)
	}
	var m struct {
		Operations []struct {
			Name, State, Error string
			Due                time.Time
		}
	}
	if err := x.call(t.Context(), "GET", "/maintenance", nil, func(b []byte) error { return json.Unmarshal(b, &m) }); err != nil {
		return err
	}
	for _, o := range m.Operations {
		late := o.Due.Sub(all[len(all)-1].Created.Add(time.Hour))
		if o.Name == "backup" && (o.State != "idle" || o.Error != "" || late.Abs() > time.Minute) {
			return fmt.Errorf("%+v is due %s late", o, late)
		}
	}
	return nil
}

// TestBackupLost loses the directory of a daemon under load, and goes on with a backup. The store is
// whole, sources are followed from where they were, the index ends equal to the network, and a
// consumer with a cursor of the lost log is told.
func TestBackupLost(t *testing.T) {
	storetest.WithoutRace(t)
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	t.Parallel()
	seed := testNumber(t, "CISTERNTEST_SEED", uint64(time.Now().UnixNano()))
	t.Logf("CISTERNTEST_SEED=%d repeats this run", seed)
	n := startNetwork(t, simnet.Options{Seed: seed, Clutter: true, Repos: 40, Hosts: 4, RecordsMedian: 15, RecordsMax: 300})
	k := newKillRun(t, n, seed, 20*time.Millisecond)
	x, to := k.index, filepath.Join(t.TempDir(), "backups")
	args := x.args(n, "--mode", "full", "--relay", n.Relay())
	c := startChild(t, args)
	x.await(t, "the daemon to answer", func() error { _, err := x.counts(t.Context()); return err })
	x.prime(t, n, n.RelayHost())
	l := &liveliness{t: t, network: n, rng: k.rng, only: 70}
	for range 4 {
		k.under(l, func() {
			out, err := x.command(t.Context(), nil, "backup", to, "--keep", "2")
			if err != nil {
				t.Errorf("backup: %v", err)
			}
			t.Log(strings.TrimSpace(out))
		})
	}
	k.under(l, func() { pause(t.Context(), 50*time.Millisecond) }) // is lost
	old := x.stats(t)
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.wait(t) // killed
	if err := os.RemoveAll(x.dir); err != nil {
		t.Fatal(err)
	}
	if out, err := x.command(t.Context(), nil, "restore", to, "--data", x.dir); err != nil {
		t.Fatalf("restore: %v\n%s", err, out)
	}
	backedUp := checkWhole(t, x.dir)
	if backedUp == 0 || backedUp > old.Log.Head {
		t.Errorf("head %d is restored, the lost log had %d", backedUp, old.Log.Head)
	}
	l.act(10)
	c = startChild(t, args)
	x.await(t, "the daemon to answer", func() error { _, err := x.counts(t.Context()); return err })
	if now := x.stats(t); now.Log.Epoch == old.Log.Epoch {
		t.Errorf("the log has the epoch %s of the lost one", now.Log.Epoch)
	}
	x.wantChanged(t, old.Log.Epoch, backedUp)
	l.act(20)
	l.bringBack()
	accounts := n.Accounts()
	x.awaitRevs(t, accounts)
	x.settle(t, map[string]int64{"repos": int64(len(accounts)), "synced": active(accounts), "records": records(accounts), "buffered": 0})
	x.wantLog(t, accounts)
	if err := errors.Join(c.cmd.Process.Signal(os.Interrupt), c.wait(t)); err != nil {
		t.Errorf("the last daemon: %v\n%s", err, c.stderr)
	}
	x.wantStore(t, accounts)
	t.Logf("head %d of %d restored, %d at the end", backedUp, old.Log.Head, checkWhole(t, x.dir))
}

// under runs do while accounts act and repositories are fetched again.
func (k *killRun) under(l *liveliness, do func()) {
	ctx, cancel := context.WithCancel(k.t.Context())
	var g errgroup.Group
	begun := make(chan struct{})
	g.Go(func() error {
		for n := 0; ctx.Err() == nil || n < 3; n++ {
			k.disturbLive(k.t.Context(), l)
			if n == 1 {
				close(begun)
			}
		}
		return nil
	})
	<-begun
	do()
	cancel()
	_ = g.Wait()
}

// logStats is the part of /stats that tells the log.
type logStats struct {
	Log struct {
		Epoch      string
		Tail, Head uint64
	}
}

func (x *testIndex) stats(t *testing.T) (stats logStats) {
	t.Helper()
	if err := x.call(t.Context(), "GET", "/stats", nil,
		func(b []byte) error { return json.Unmarshal(b, &stats) }); err != nil {
		t.Fatal(err)
	}
	return stats
}

// wantChanged has a consumer go on with a cursor of a log that was lost.
func (x *testIndex) wantChanged(t *testing.T, epoch string, cursor uint64) {
	t.Helper()
	conn, _, err := websocket.DefaultDialer.DialContext(t.Context(),
		fmt.Sprintf("ws://%s/stream?cursor=%d&epoch=%s", x.public, cursor, epoch), nil)
	if err == nil {
		var text []byte
		_, text, err = conn.ReadMessage()
		if err == nil {
			err = errors.New(string(text))
		}
		_ = conn.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "OutdatedCursor") || !strings.Contains(err.Error(), epoch) {
		t.Errorf("a consumer of the lost log is told %v", err)
	}
}

// checkWhole checks the store in a directory, which has every event from the tail to the head, and
// returns the head.
func checkWhole(t *testing.T, dir string) uint64 {
	t.Helper()
	s, err := openForCheck(dir, newLogger(io.Discard, 0))
	if err != nil {
		t.Fatal(err)
	}
	storetest.Check(t, s)
	head := s.Head()
	if n := s.Counts()["events"]; uint64(n) != head+1-s.Tail() {
		t.Errorf("the log has %d events from %d to %d", n, s.Tail(), head)
	}
	for next := s.Tail(); next <= head; {
		if next, err = s.ReadLog(t.Context(), next, 1000, func(*store.Event) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	return head
}
