package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"cistern/api/names"
	"cistern/cmd/cistern/command"
	"cistern/gate"
	"cistern/ingest/simnet"
	"cistern/store"
)

// TestRepoCommands runs the repo commands against a daemon.
func TestRepoCommands(t *testing.T) {
	t.Parallel()
	const token = "a-secret,for-tests"
	n := startNetwork(t, simnet.Options{Seed: 3, Repos: 12, Hosts: 2})
	x, tune := newTestIndex(t), hasty()
	tune.names = func(o *names.Options) { o.DNS = n.Names() }
	x.startTuned(t, x.args(n), tune)
	dids := n.DIDs()
	run := func(stdin string, args ...string) (string, error) {
		var out bytes.Buffer
		a := &app{Process: command.Process{Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &out, Environ: []string{"CISTERN_ADMIN=" + x.admin}}}
		err := a.run(t.Context(), append([]string{"repo"}, args...))
		return out.String(), err
	}
	file := filepath.Join(t.TempDir(), "dids")
	if err := os.WriteFile(file, []byte("# comment\n\n"+dids[2]+" # one\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	steps := []struct {
		name  string
		stdin string
		args  []string
		want  []string // in the output
		fails string   // in the error
	}{
		{"nothing there yet", "", []string{"ls"}, []string{"no repositories"}, ""},
		{"by argument", "", []string{"add", dids[0], dids[1]}, []string{"2 added"}, ""},
		{"from a file", "", []string{"add", "-f", file}, []string{"1 added"}, ""},
		{"from standard input", strings.Join(dids[2:], "\n"), []string{"add", "-f", "-"}, []string{"9 added", "1 known"}, ""},
		{"one bad among good", "", []string{"add", dids[0], "no-did"}, []string{"1 known", "no-did", "is not a DID"}, "1 DID refused"},
		{"no DID at all", "", []string{"add"}, nil, "needs DIDs"},
		{"settled", "", nil, nil, ""},
		{"all", "", []string{"ls"}, []string{"DID ", "STATE", dids[0], dids[11], "synced"}, ""},
		{"in pages", "", []string{"ls", "--limit", "0", "--json"}, []string{`{"did":"` + dids[11]}, ""},
		{"the first", "", []string{"ls", "--limit", "11"}, []string{"there are more: --limit 0"}, ""},
		{"by host", "", []string{"ls", "--host", strings.TrimPrefix(n.Host(0).URL(), "http://")}, []string{dids[0], dids[2]}, ""},
		{"by unknown state", "", []string{"ls", "--state", "odd"}, nil, "want pending"},
		{"bad limit", "", []string{"ls", "--limit=-1"}, nil, `--limit "-1"`},
		{"one", "", []string{"show", dids[0]}, []string{"state              synced", "signing_key"}, ""},
		{"one by handle", "", []string{"show", "user3.sim.test"}, []string{"handle             user3.sim.test", "state              synced"}, ""},
		{"unknown handle", "", []string{"show", "absent.example"}, nil, `handle "absent.example" leads to no account`},
		{"neither", "", []string{"show", "absent"}, nil, "is not a DID"},
		{"one unknown", "", []string{"show", "did:web:nobody.example"}, nil, "NotFound"},
		{"again by state", "", []string{"resync", "--state", "synced"}, []string{"12 queued"}, ""},
		{"state and DIDs", "", []string{"resync", "--state", "synced", dids[0]}, nil, "not both"},
		{"stop", "", []string{"rm", dids[0]}, []string{"1 removed"}, ""},
		{"wipe", "", []string{"rm", "--purge", dids[1]}, []string{"1 purged"}, ""},
		{"unknown to remove", "", []string{"rm", "did:web:nobody.example"}, []string{"not found"}, "1 DID refused"},
		{"no daemon", "", []string{"ls", "--admin", freeAddress(t)}, nil, "no daemon answers"},
		{"bad address", "", []string{"ls", "--admin", "nowhere"}, nil, `--admin "nowhere"`},
		{"unknown command", "", []string{"lst"}, nil, "did you mean ls?"},
	}
	for _, s := range steps {
		if s.args == nil {
			x.settle(t, map[string]int64{"synced": 12})
			continue
		}
		out, err := run(s.stdin, s.args...)
		if s.fails == "" && err != nil || s.fails != "" && (err == nil || !strings.Contains(err.Error(), s.fails)) {
			t.Errorf("%s: error %v, want %q", s.name, err, s.fails)
		}
		for _, want := range s.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s: %q does not contain %q", s.name, out, want)
			}
		}
	}
	t.Run("token", func(t *testing.T) {
		y := newTestIndex(t)
		y.token = token
		y.start(t, y.args(n, "--admin-token", token))
		var out bytes.Buffer
		for _, row := range []struct {
			environ, args []string
			fails         bool
		}{{nil, nil, true}, {[]string{"CISTERN_ADMIN_TOKEN=" + token}, nil, false}, {nil, []string{"--admin-token", token}, false}} {
			a := &app{Process: command.Process{Stdout: &out, Stderr: io.Discard, Environ: row.environ}}
			if err := a.run(t.Context(), append([]string{"repo", "ls", "--admin", "http://" + y.admin + "/"}, row.args...)); (err != nil) != row.fails {
				t.Errorf("with %q %q: %v", row.environ, row.args, err)
			}
		}
	})
}

// wantLive makes a complete repository commit, and checks that the index follows.
func wantLive(t *testing.T, d *daemon, n *simnet.Network) {
	t.Helper()
	for _, a := range n.Accounts() {
		if row, err := d.store.Repo(a.DID()); err != nil || row.State != store.StateSynced {
			continue
		}
		c, err := a.Mutate(1)
		if err != nil {
			t.Fatal(err)
		}
		(&testIndex{}).await(t, "a live event", func() error {
			row, err := d.store.Repo(a.DID())
			if err == nil && row.Rev != c.Rev {
				err = fmt.Errorf("%s at %s", row.State, row.Rev)
			}
			return err
		})
		return
	}
	t.Error("nothing is complete")
}

// TestReserveStopsBackfill lets the disk become short in the middle of a backfill: imports pause,
// and live events are still applied.
func TestReserveStopsBackfill(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 4, Repos: 60, Hosts: 2})
	for _, h := range n.Hosts() {
		h.Inject(simnet.Fault{Kind: simnet.Latency, Delay: 20 * 1e6})
	}
	x := newTestIndex(t)
	cfg, err := demoConfig(n, x.dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := (&app{Process: command.Process{Stdout: io.Discard}}).listenNear("--listen", "127.0.0.1:0", "")
	if err != nil {
		t.Fatal(err)
	}
	m, err := (&app{Process: command.Process{Stdout: io.Discard}}).listenNear("--admin", "127.0.0.1:0", "")
	if err != nil {
		t.Fatal(err)
	}
	x.public, x.admin = l.Addr().String(), m.Addr().String()
	d, err := newDaemon(cfg, newLogger(io.Discard, 0), listeners{l, m}, hasty())
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	stop := startDaemon(t, d, result)
	some := func(min int64) func() error {
		return func() error {
			if got := d.store.Counts()["synced"]; got < min {
				return fmt.Errorf("%d synced", got)
			}
			return nil
		}
	}
	for _, share := range []int64{5, 20, 40} {
		x.await(t, "some repositories", some(share))
		for _, part := range []*gate.Gate{&d.gates.backfill, &d.gates.crawler} {
			part.Shut(gate.Cause{Name: "test", Reason: "as if the disk were full", Halts: true})
		}
		x.await(t, "backfill to stop", func() error {
			if d.backfill.Syncing() > 0 {
				return errors.New("still syncing")
			}
			return nil
		})
		before := d.store.Counts()["synced"]
		var stats struct{ Paused map[string][]string }
		if err := x.call(t.Context(), "GET", "/stats", nil, func(body []byte) error { return json.Unmarshal(body, &stats) }); err != nil {
			t.Error(err)
		}
		why := []string{"as if the disk were full"}
		if want := map[string][]string{"backfill": why, "crawler": why}; !reflect.DeepEqual(stats.Paused, want) {
			t.Errorf("/stats says %v", stats.Paused)
		}
		if after := d.store.Counts()["synced"]; after != before {
			t.Errorf("imports went on while the disk was short: %d, then %d", before, after)
		}
		wantLive(t, d, n)
		for _, part := range []*gate.Gate{&d.gates.backfill, &d.gates.crawler} {
			part.Open("test")
		}
	}
	x.await(t, "the rest", some(60))
	stop()
	if err := <-result; err != nil {
		t.Error(err)
	}
	x.wantStore(t, n.Accounts())
}
