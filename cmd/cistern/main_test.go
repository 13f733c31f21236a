package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"cistern/cmd/cistern/command"
	"cistern/store"
)

// TestUsageExitCode: a command line or a variable that is wrong has an exit code of its own, with which
// the unit of systemd does not start the daemon again. Other failures have another one.
func TestUsageExitCode(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := store.Open(store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	run := "run --listen 127.0.0.1:0 --admin 127.0.0.1:0 --data " + dir
	for _, row := range []struct {
		args, environ string
		code          int
		says          string
	}{
		{"run --lisen :1", "", 64, "did you mean --listen?"},
		{"run --listen", "", 64, "--listen"},
		{"run now", "", 64, "takes no arguments"},
		{"run now --relay x", "", 64, "--relay"}, // two mistakes of two parts
		{"run now --relay x", "", 64, "takes no arguments"},
		{"run --retention often", "", 64, "--retention"},
		{"run", "CISTERN_RETENTION=often", 64, "CISTERN_RETENTION"},
		{"run", "CISTERN_RETENSION=7d", 64, "CISTERN_RETENTION"},
		{"run --mode full", "", 64, "--mode full needs"},
		{run + " --ephemeral --retention 1h", "", 64, "start without --ephemeral"},
		{"rnu", "", 64, "did you mean run?"},
		{"status --jsn", "", 64, "did you mean --json?"},
		{"maintain run", "", 64, "takes OPERATION"},
		{"subscription rm", "", 64, "needs the NAME"},
		{"export", "", 64, "takes DEST, got"},
		// These may succeed when they are tried again.
		{"run --listen " + taken.Addr().String() + " --data " + dir, "", 1, "another program uses port"},
		{run + " --data-mount /does/not/exist", "", 1, "--data-mount"},
		{"check --data /does/not/exist", "", 1, "no store to check"},
	} {
		var stderr bytes.Buffer
		a := &app{Process: command.Process{Stdout: &stderr, Stderr: &stderr, Exit: func(int) {}, Environ: strings.Fields(row.environ)}}
		code := command.ExitCode(a.run(t.Context(), strings.Fields(row.args)), &stderr)
		if code != row.code || !strings.Contains(stderr.String(), row.says) {
			t.Errorf("%s cistern %s: exit code %d, want %d and %q\n%s", row.environ, row.args, code, row.code, row.says, &stderr)
		}
	}
	unit, err := os.ReadFile("../../packaging/cistern.service")
	if want := fmt.Sprintf("\nRestartPreventExitStatus=%d\n", command.ExitUsage); err != nil || !strings.Contains(string(unit), want) {
		t.Errorf("the unit has no %q (%v)", want, err)
	}
}
