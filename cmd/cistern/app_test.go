package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"cistern/cmd/cistern/command"

	"github.com/mattn/go-runewidth"
)

// TestCommands checks that every command has a help page, and that a mistake is reported in one
// line.
func TestCommands(t *testing.T) {
	t.Parallel()
	empty := t.TempDir()
	rows := []struct {
		args        string
		out, failed string
	}{
		{"", "Commands:", ""},
		{"--help", "Commands:", ""},
		{"run --help", "--disk-reserve SIZE|PERCENT", ""},
		{"help demo", "--seed N", ""},
		{"check --help", "Verify a store offline", ""},
		{"run -h", "--plc URL  (repeatable)\n      PLC directory", ""},
		{"run -h", "Default https://plc.directory.", ""},
		{"run -h", "--disk-reserve is CISTERN_DISK_RESERVE", ""},
		{"repo", "resync", ""},
		{"repo --help", "Commands:\n  add ", ""},
		{"tail --help", "--cursor N\n      Begin at", ""},
		{"alerts --help", "Usage:\n  cistern alerts [options]\n", ""},
		{"version --help", "Usage:\n  cistern version\n", ""},
		{"repo add --help", "--file, -f FILE", ""},
		{"version", "cistern ", ""},
		{"--version", "cistern", ""},
		{"backup --help", "Commands:\n  ls ", ""},
		{"backup --help", "--keep N", ""},
		{"backup verify --help", "exit code is 1", ""},
		{"restore --help", "--generation NAME", ""},
		{"backup lss ./x", "", `backup has no command "lss"; a directory needs a slash in its name, such as ./lss (see: cistern backup --help)`},
		{"restore", "", "restore takes SRC, got 0 arguments"},
		{"rnu", "", `unknown command "rnu"; did you mean run?`},
		{"filter --help", "", `unknown command "filter"; did you mean alerts? (see: cistern --help)`},
		{"help filter", "", `unknown command "filter"`},
		{"repo shw --help", "", `unknown command "shw"; did you mean show? (see: cistern repo --help)`},
		{"repo help add", "--file, -f FILE", ""},
		{"run --lisen :1", "", "did you mean --listen? (see: cistern run --help)"},
		{"run --listen :1 --relai=x", "", "did you mean --relay?"},
		{"check --dta .", "", "did you mean --data?"},
		{"repo ls --state x --hst y", "", "did you mean --host?"},
		{"run --listen", "", "(see: cistern run --help)"}, // known, without its value
		{"run now", "", `takes no arguments, got "now"`},
		{"demo --repos 0 --hosts 0", "", "2 mistakes:\n  --repos \"0\": want a number from 1 to 1000000\n  --hosts \"0\": want a number from 1 to 200"},
		{"demo --admin 0.0.0.0:1", "", "loopback"},
		{"demo --data .", "", "want an empty directory"},
		{"check --data /does/not/exist", "", "no store to check"},
		{"check --data " + empty, "", "the directory contains no store"},
	}
	for _, row := range rows {
		var out bytes.Buffer
		a := &app{Process: command.Process{Stdout: &out, Stderr: &out, Exit: func(int) {}}}
		err := a.run(t.Context(), strings.Fields(row.args))
		if row.failed == "" && err != nil || row.failed != "" && (err == nil || !strings.Contains(err.Error(), row.failed)) {
			t.Errorf("cistern %s: %v, want %q", row.args, err, row.failed)
		}
		if !strings.Contains(out.String(), row.out) || err != nil && strings.Contains(out.String(), "OPTIONS") {
			t.Errorf("cistern %s: %s", row.args, &out)
		}
		for line := range strings.Lines(out.String()) {
			if runewidth.StringWidth(line) > 100 {
				t.Errorf("cistern %s: a wide line: %q", row.args, line)
			}
		}
		if err != nil && row.args != "check" && strings.Contains(err.Error(), "stop") {
			t.Errorf("cistern %s: %v, but no daemon is there to be stopped", row.args, err)
		}
	}
	if left, err := os.ReadDir(empty); err != nil || len(left) > 0 {
		t.Errorf("check left %v in an empty directory (%v)", left, err)
	}
}
