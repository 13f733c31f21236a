package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cistern/ingest/simnet"
)

// writeCARs writes the CARs of accounts to a directory.
func writeCARs(t *testing.T, accounts []*simnet.Account) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for i, a := range accounts {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.car", i)), a.CAR(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestImport imports a world into an empty store. The network goes on before a daemon starts, and
// the daemon finds out what it missed without a cursor of any firehose.
func TestImport(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 41, Repos: 16, Hosts: 3, Empty: 1, OddKeys: 1})
	x := newTestIndex(t)
	accounts := n.Accounts()
	dir := writeCARs(t, accounts)
	options := []string{"--data", x.dir, "--plc", n.PLC(), "--allow-private"}
	run := func(want, fails string, args ...string) {
		t.Helper()
		out, err := x.command(t.Context(), nil, args...)
		if !strings.Contains(out, want) {
			t.Errorf("%v printed %q, want %q", args, out, want)
		}
		if fails == "" && err != nil || fails != "" && (err == nil || !strings.Contains(err.Error(), fails)) {
			t.Errorf("%v: %v, want %q", args, err, fails)
		}
	}
	run("", "import takes SRC, got 0 arguments", "import")
	run("", "no such file", "import", filepath.Join(dir, "none"))
	run("16 new, 0 updated; 0 not newer, 0 refused", "", append([]string{"import", dir}, options...)...)
	run("0 new, 0 updated; 16 not newer, 0 refused", "", append([]string{"import", dir}, options...)...)
	run("no differences", "", "check", "--data", x.dir)
	x.wantStore(t, accounts)

	bad := accounts[3].CAR()
	bad[len(bad)-1] ^= 1
	if err := os.WriteFile(filepath.Join(dir, "bad\x1b[2J.car"), bad, 0o644); err != nil {
		t.Fatal(err)
	}
	report := filepath.Join(t.TempDir(), "report")
	run("refused bad·[2J.car (unknown account): block ", "1 CAR refused",
		append([]string{"import", dir, "--report", report}, options...)...)
	if text, err := os.ReadFile(report); err != nil || !strings.HasPrefix(string(text), `{"path":"bad\u001b[2J.car","reason":"`) {
		t.Errorf("report %q, %v", text, err)
	}

	for _, a := range accounts[:6] {
		if _, err := a.Mutate(4); err != nil {
			t.Fatal(err)
		}
	}
	accounts[6].SetStatus(simnet.Deactivated)
	accounts[7].SetStatus(simnet.Takendown)
	stop := x.start(t, x.args(n, "--relay", n.Relay()))
	x.follow(t, n.RelayHost())
	run("", "open store "+x.dir, append([]string{"import", dir}, options...)...)
	x.awaitRevs(t, accounts)
	for _, a := range accounts[8:12] {
		if _, err := a.Mutate(2); err != nil {
			t.Fatal(err)
		}
	}
	x.awaitRevs(t, accounts)
	for _, a := range accounts[8:] {
		if n := len(a.Host().Log().Fetches[a.DID()]); n > 0 {
			t.Errorf("%s was imported, and fetched %d times", a.DID(), n)
		}
	}
	stop()
	x.wantStore(t, accounts)
	x.start(t, x.args(n)) // whose log has what was durable
	x.wantLog(t, accounts)
}
