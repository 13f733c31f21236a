package main

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"cistern/ingest/simnet"

	"github.com/google/go-cmp/cmp"
)

// TestReadOnly serves the store of a daemon that has ended, and a restored backup of it: queries and
// streams answer, what would change something is refused, and no file changes meanwhile. A restored
// backup has an epoch of its own, which stays.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 5, Repos: 6, Hosts: 2})
	x := newTestIndex(t)
	stop := x.start(t, x.args(n))
	x.track(t, n.Accounts()...)
	x.settle(t, map[string]int64{"synced": 6})
	to := filepath.Join(t.TempDir(), "backups")
	if out, err := x.command(t.Context(), nil, "backup", to); err != nil {
		t.Fatalf("backup: %v\n%s", err, out)
	}
	live := x.stats(t)
	stop()
	restored := newTestIndex(t)
	if out, err := restored.command(t.Context(), nil, "restore", to, "--data", restored.dir); err != nil {
		t.Fatalf("restore: %v\n%s", err, out)
	}
	var epochs []string
	for _, x := range []*testIndex{x, restored, restored} {
		stop := x.start(t, x.args(n, "--read-only"))
		files := x.files(t)
		epochs = append(epochs, x.stats(t).Log.Epoch)
		x.wantReadOnly(t, n)
		if d := cmp.Diff(files, x.files(t)); d != "" {
			t.Errorf("files changed: %s", d)
		}
		stop()
		x.wantStore(t, n.Accounts())
	}
	if epochs[0] != live.Log.Epoch || epochs[1] == live.Log.Epoch || epochs[1] != epochs[2] {
		t.Errorf("epochs %v, and %s of the daemon that wrote", epochs, live.Log.Epoch)
	}
}

// wantReadOnly asks a daemon that runs with --read-only for what it must and must not do.
func (x *testIndex) wantReadOnly(t *testing.T, n *simnet.Network) {
	t.Helper()
	x.wantLog(t, n.Accounts())
	if r := x.phase(t); r.Phase != "suspended" || !r.Reached {
		t.Errorf("the phase is %+v", r)
	}
	for _, r := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"GET", "/phase", "", http.StatusOK, "--read-only"},
		{"GET", "/readyz", "", http.StatusOK, ""},
		{"PUT", "/phase", `{"phase":"active"}`, http.StatusConflict, "--read-only"},
		{"PUT", "/repos", `{"dids":["` + n.Accounts()[0].DID() + `"]}`, http.StatusServiceUnavailable, "suspended"},
		{"PATCH", "/filter", `{"mode":"full"}`, http.StatusServiceUnavailable, "suspended"},
		{"PUT", "/subscriptions/a", `{}`, http.StatusServiceUnavailable, "suspended"},
		{"POST", "/maintenance/prune", `{}`, http.StatusServiceUnavailable, "suspended"},
		{"POST", "/checkpoint", `{}`, http.StatusServiceUnavailable, "suspended"},
	} {
		if status, answer := x.send(t, r.method, r.path, r.body); status != r.status || !strings.Contains(answer, r.says) {
			t.Errorf("%s %s: %d %s, want %d and %q", r.method, r.path, status, answer, r.status, r.says)
		}
	}
}

// TestReadOnlyRefuses: there must be a store, and no option that needs the network.
func TestReadOnlyRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "contains no store"},
		{[]string{"--relay", "https://relay.example.com"}, "--relay has no use with --read-only"},
		{[]string{"--ephemeral"}, "--ephemeral has no use with --read-only"},
		{[]string{"--crawl", "repos::https://pds.example.com", "--backup", "/tmp/b"}, "--backup has no use with --read-only"},
	} {
		x := &testIndex{dir: dir, public: "127.0.0.1:0", admin: "127.0.0.1:0"}
		out, err := x.command(t.Context(), nil, append([]string{"run", "--read-only", "--data", dir, "--listen", x.public, "--admin", x.admin}, c.args...)...)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q\n%s", c.args, err, c.want, out)
		}
	}
	if files := (&testIndex{dir: dir}).files(t); len(files) != 1 {
		t.Errorf("files were made: %v", files)
	}
}
