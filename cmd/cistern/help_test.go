package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"cistern/cmd/cistern/command"

	"github.com/urfave/cli/v3"
)

// wordsFlag ends a command line that the script of a shell wants to have completed.
const wordsFlag = "--generate-shell-completion"

// printedBy returns what a command prints.
func printedBy(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	a := &app{Process: command.Process{Stdout: &out, Stderr: &out, Exit: func(int) {}}}
	if err := a.run(t.Context(), args); err != nil {
		t.Fatalf("cistern %s: %v", args, err)
	}
	return out.String()
}

// TestManual: the manual page has every command and option, and man has no complaint about it.
func TestManual(t *testing.T) {
	t.Parallel()
	page := printedBy(t, "man")
	roff := func(text string) string { return strings.ReplaceAll(text, "-", `\-`) }
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
	for _, want := range []string{"cistern backup verify", "--disk-reserve SIZE|PERCENT", "EXIT STATUS", "CISTERN_ADMIN, CISTERN_ADMIN_TOKEN", "Ctrl-C, SIGINT", "AWS_ACCESS_KEY_ID", "NO_COLOR", "64 ", "130", "cistern status --probe || systemctl restart cistern"} {
		if !strings.Contains(shown.String(), want) {
			t.Errorf("the formatted manual lacks %q", want)
		}
	}
}

// TestHelpFits: a help page has no line that is longer than a terminal is wide. Command lines may be:
// a terminal would not break them in a place where they can be typed.
func TestHelpFits(t *testing.T) {
	t.Parallel()
	var visit func(path []string, cmd *cli.Command)
	visit = func(path []string, cmd *cli.Command) {
		page, _, _ := strings.Cut(printedBy(t, append(path, "--help")...), "\nExamples:\n")
		for line := range strings.Lines(page) {
			if n := utf8.RuneCountInString(line) - 1; n > 80 && !strings.HasPrefix(line, "  cistern ") {
				t.Errorf("%s: %d columns: %s", path, n, line)
			}
		}
		for _, sub := range cmd.Commands {
			visit(append(slices.Clone(path), sub.Name), sub)
		}
	}
	visit(nil, new(app).commands())
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
		got := printedBy(t, append(strings.Fields(row.words), wordsFlag)...)
		if !strings.Contains(got, row.has) || strings.Contains(got, row.lack) {
			t.Errorf("%q is completed with\n%s", row.words, got)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish", "pwsh"} {
		script := printedBy(t, "completion", shell)
		if !strings.Contains(script, wordsFlag) {
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

// TestCompletionRunsNothing: the script for bash asks about the words of a command line, and runs neither
// its redirections nor its substitutions.
func TestCompletionRunsNothing(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	kept := filepath.Join(dir, "kept")
	if err := errors.Join(os.Symlink(self, filepath.Join(dir, "cistern")), os.WriteFile(kept, []byte("kept"), 0o600)); err != nil {
		t.Fatal(err)
	}
	const driver = `source <(cistern completion bash)
		ask() { COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); COMPREPLY=(); __cistern_bash_autocomplete; echo "${COMPREPLY[@]}"; }
		ask cistern host l
		ask cistern host ls '>' "$HOME/kept" ''
		ask cistern host '$(touch $HOME/made)' ''
		ask cistern host 'x;touch $HOME/made' ''`
	bash := exec.Command("bash", "--norc", "--noprofile", "-c", driver)
	bash.Env = append(os.Environ(), childAsShips, "PATH="+dir+":"+os.Getenv("PATH"), "HOME="+dir)
	out, err := bash.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "ls limit\n") {
		t.Errorf("bash completes: %v\n%s", err, out)
	}
	if text, err := os.ReadFile(kept); err != nil || string(text) != "kept" {
		t.Errorf("a redirection was done: %q, %v", text, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "made")); err == nil {
		t.Error("a substitution was done")
	}
}

// TestCompletionDriven: the shells that are installed complete a command: bash and zsh when
// their tab key is pressed, fish by its command that does the same. bash does it without the package bash-completion.
func TestCompletionDriven(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	dir := filepath.Join(home, "bin")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Symlink(self, filepath.Join(dir, "cistern"))); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ shell, starts, source string }{
		{"bash", "bash --norc --noprofile -i", "PS1='ready> '; source <(cistern completion bash)"},
		{"zsh", "zsh -f -i", "PS1='ready> '; autoload -Uz compinit; compinit -u -D; source <(cistern completion zsh)"},
	} {
		if _, err := exec.LookPath(row.shell); err != nil {
			if row.shell == "bash" {
				t.Fatal(err)
			}
			t.Logf("%s is not installed", row.shell)
			continue
		}
		// Each in a shell of its own: what is typed while a completion runs may interrupt it.
		for typed, completed := range map[string]string{"cistern stat": "cistern status ", "cistern top --ev": "cistern top --every "} {
			// tmux ignores a PATH of -e, and gives its own to the shell. HOME has no file that a shell would complete.
			x := newTerminal(t, 120, 20, "cd; PATH=$HOME/bin:$PATH "+row.starts, "HOME="+home, "HISTFILE=/dev/null")
			x.tmux("send-keys", row.source+" && clear && echo be''gin", "Enter")
			x.await("begin")
			x.tmux("send-keys", typed)
			x.await(typed)
			x.tmux("send-keys", "Tab")
			x.await(strings.TrimSpace(completed))
			x.tmux("send-keys", "x") // behind the space that ends a completion
			x.await(completed + "x")
		}
	}
	if _, err := exec.LookPath("fish"); err != nil {
		t.Skip("fish is not installed")
	}
	fish := exec.Command("fish", "--no-config", "-c", "cistern completion fish | source; complete -C 'cistern stat'; complete -C 'cistern top --ev'")
	fish.Env = append(os.Environ(), childAsShips, "PATH="+dir+":"+os.Getenv("PATH"), "HOME="+home)
	out, err := fish.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "status\t") || !strings.Contains(string(out), "\n--every\t") {
		t.Errorf("fish completes: %v\n%s", err, out)
	}
}
