package main

import (
	"bytes"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v3"
)

// printedBy returns what a command prints.
func printedBy(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	a := &app{stdout: &out, stderr: &out, exit: func(int) {}}
	if err := a.run(t.Context(), args); err != nil {
		t.Fatalf("cistern %s: %v", args, err)
	}
	return out.String()
}

// TestManual: the manual page has every command and option, and man has no complaint about it.
func TestManual(t *testing.T) {
	t.Parallel()
	page := printedBy(t, "man")
	var visit func(path string, cmd *cli.Command)
	visit = func(path string, cmd *cli.Command) {
		if !strings.Contains(page, ".SS "+roff(path)+"\n") {
			t.Errorf("the manual has no section %s", path)
		}
		for _, f := range cmd.Flags {
			if !strings.Contains(page, roff("--"+f.Names()[0])+`\fR`) && !strings.Contains(page, roff("--"+f.Names()[0]+", -")) {
				t.Errorf("the manual has no option --%s of %s", f.Names()[0], path)
			}
		}
		for _, sub := range cmd.Commands {
			visit(path+" "+sub.Name, sub)
		}
	}
	for _, cmd := range new(app).commands().Commands {
		visit("cistern "+cmd.Name, cmd)
	}
	if strings.Contains(page, "{{") {
		t.Error("the manual has a part of a template")
	}
	if _, err := exec.LookPath("man"); err != nil {
		t.Skip("man is not installed, so nothing can format the page")
	}
	man := exec.Command("man", "--warnings", "-l", "-")
	man.Env = append(man.Environ(), "MANWIDTH=80", "LC_ALL=C.UTF-8", "MANROFFOPT=")
	var shown, complaints bytes.Buffer
	man.Stdin, man.Stdout, man.Stderr = strings.NewReader(page), &shown, &complaints
	if err := man.Run(); err != nil || complaints.Len() > 0 {
		t.Errorf("man: %v\n%s", err, &complaints)
	}
	for _, want := range []string{"cistern backup verify", "--disk-reserve SIZE|PERCENT", "EXIT STATUS", "CISTERN_ADMIN, CISTERN_ADMIN_TOKEN", "Ctrl-C, SIGINT", "AWS_ACCESS_KEY_ID", "NO_COLOR", "130", "cistern status --probe || systemctl restart cistern"} {
		if !strings.Contains(shown.String(), want) {
			t.Errorf("the formatted manual lacks %q", want)
		}
	}
}

// TestCompletion: each word is completed with what may follow the words before it, and the scripts
// are understood by their shells, as far as these are installed.
func TestCompletion(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		words     string
		has, lack string
	}{
		{"", "status:show whether", "--"},
		{"ba", "backup:", "--"},
		{"backup", "verify:compare", "status:"},
		{"backup -", "--keep:Delete older", "--every"},
		{"top --ev", "--every:Time between", "--json"},
		{"repo add --file x -", "--file:", "--every"},
		{"completion", "zsh:", "status:"},
	} {
		got := printedBy(t, append(strings.Fields(row.words), completionFlag)...)
		if !strings.Contains(got, row.has) || strings.Contains(got, row.lack) {
			t.Errorf("%q is completed with\n%s", row.words, got)
		}
	}
	for _, shell := range shells {
		script := printedBy(t, "completion", shell)
		if !strings.Contains(script, completionFlag) {
			t.Errorf("the script for %s asks for nothing:\n%s", shell, script)
		}
		if _, err := exec.LookPath(shell); err != nil || shell == "pwsh" {
			continue
		}
		check := exec.Command(shell, "-n")
		check.Stdin = strings.NewReader(script)
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", shell, err, out)
		}
	}
	if !slices.Contains(strings.Split(printedBy(t, "--help"), "\n"), "  completion    print a script that completes commands in a shell") {
		t.Error("the help page does not name completion")
	}
}
