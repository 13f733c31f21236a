package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// demandTmux is the variable that makes tests of terminals fail where tmux is absent.
const demandTmux = "CISTERNTEST_TMUX"

// terminal is a terminal emulator of its own, in which a shell runs.
type terminal struct {
	t      *testing.T
	socket string
}

// newTerminal runs a shell script in a terminal of a size. In the script, "cistern" is this program.
// The last line that the terminal shows is the script's exit code.
func newTerminal(t *testing.T, columns, rows int, script string, environ ...string) *terminal {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		if os.Getenv(demandTmux) != "" {
			t.Fatal(err)
		}
		t.Skip("tmux is not installed, so nothing can be shown in a terminal")
	}
	dir, err := os.MkdirTemp("", "tmux") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	x := &terminal{t: t, socket: filepath.Join(dir, "s")}
	conf := filepath.Join(dir, "conf")
	if err := os.WriteFile(conf, []byte("set -g status off\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-f", conf, "new-session", "-d", "-x", fmt.Sprint(columns), "-y", fmt.Sprint(rows),
		"-e", childAsShips, "-e", "LC_ALL=C.UTF-8"}
	for _, kv := range environ {
		args = append(args, "-e", kv)
	}
	t.Cleanup(func() {
		_ = exec.Command("tmux", "-S", x.socket, "kill-server").Run()
		_ = os.RemoveAll(dir)
	})
	script = strings.ReplaceAll(script, "cistern", self) + "; echo exit $?; exec sleep 600"
	x.tmux(append(args, "sh", "-c", script)...)
	return x
}

// tmux runs a command of tmux, and returns what it prints.
func (x *terminal) tmux(args ...string) string {
	x.t.Helper()
	cmd := exec.Command("tmux", append([]string{"-u", "-S", x.socket}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		x.t.Fatalf("tmux %s: %v\n%s", args, err, out)
	}
	return string(out)
}

// screen returns what the terminal shows, with escape sequences of colours or without. Lines at its
// end that are empty are left out.
func (x *terminal) screen(colours bool) string {
	x.t.Helper()
	args := []string{"capture-pane", "-p"}
	if colours {
		args = append(args, "-e")
	}
	return strings.TrimRight(x.tmux(args...), "\n") + "\n"
}

// await waits until the terminal shows a text. It gives up when a minute has passed.
func (x *terminal) await(text string) (screen string) {
	x.t.Helper()
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if screen = x.screen(false); strings.Contains(screen, text) {
			return screen
		}
		if time.Since(begin) > time.Minute {
			x.t.Fatalf("the terminal does not show %q:\n%s", text, screen)
		}
	}
}

// goldenScreen compares a screen with the file of this name.
func goldenScreen(t *testing.T, name, screen string) {
	t.Helper()
	file := filepath.Join("testdata", "screens", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(screen), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), screen); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// TestStatusScreen shows the status in terminals of two widths, with colours and with NO_COLOR, and
// through a pipe.
func TestStatusScreen(t *testing.T) {
	t.Parallel()
	admin := serveStub(t, &stubDaemon{overview: "troubled"})
	for _, columns := range []int{80, 160} {
		name := fmt.Sprintf("status_%d", columns)
		script := "cistern status --admin " + admin
		x := newTerminal(t, columns, 40, script)
		goldenScreen(t, name, x.await("exit 1"))
		goldenScreen(t, name+"_colours", x.screen(true))
		x = newTerminal(t, columns, 40, script, "NO_COLOR=1")
		if plain := x.await("exit 1"); plain != x.screen(true) {
			t.Errorf("NO_COLOR is set, and there are colours:\n%q", x.screen(true))
		} else {
			goldenScreen(t, name, plain)
		}
	}
	x := newTerminal(t, 160, 40, "cistern status --admin "+admin+" | cat")
	piped := x.await("exit 0")
	if piped != x.screen(true) {
		t.Errorf("a pipe gets colours:\n%q", x.screen(true))
	}
	goldenScreen(t, "status_pipe", piped)
}

// TestTopScreen shows top in terminals of two widths, scrolls it and ends it. Then the terminal is as
// it was.
func TestTopScreen(t *testing.T) {
	t.Parallel()
	admin := serveStub(t, &stubDaemon{overview: "troubled"})
	// The shell shows whether the terminal still has lines and echoes what is typed.
	script := "echo before; cistern top --every 200ms --admin " + admin + "; echo ended $?; stty -a | grep -o -w -e -icanon -e -echo -e icanon -e echo"
	for _, columns := range []int{80, 160} {
		name := fmt.Sprintf("top_%d", columns)
		x := newTerminal(t, columns, 16, script)
		goldenScreen(t, name, x.await("lines 1 to"))
		goldenScreen(t, name+"_colours", x.screen(true))
		x.tmux("send-keys", "End")
		goldenScreen(t, name+"_end", x.await("pds.example.com"))
		x.tmux("send-keys", "Home")
		x.await("Per second")
		x.tmux("send-keys", "C-c")
		wantRestored(t, x, "ended 0")
	}
	x := newTerminal(t, 80, 16, script, "NO_COLOR=1")
	if plain := x.await("lines 1 to"); plain != x.screen(true) {
		t.Errorf("NO_COLOR is set, and there are colours:\n%q", x.screen(true))
	}
	x.tmux("send-keys", "q")
	wantRestored(t, x, "ended 0")
}

// wantRestored wants that the terminal shows what it did before, and works as it did.
func wantRestored(t *testing.T, x *terminal, ended string) {
	t.Helper()
	x.await("exit ")
	if want := "before\n" + ended + "\nicanon\necho\nexit 0\n"; x.screen(false) != want {
		t.Errorf("the terminal was left with:\n%swant:\n%s", x.screen(false), want)
	}
}

// panicVariable is the step of top at which a child panics, so that tests see what it leaves.
const panicVariable = "CISTERNTEST_PANIC"

// panicAt returns a hook of top that panics at a step, nil for no step. The first picture is drawn
// before.
func panicAt(step string) func(string) {
	if step == "" {
		return nil
	}
	var drawn atomic.Int32
	return func(now string) {
		if now == "draw" {
			drawn.Add(1)
		}
		if now == step && drawn.Load() > 10 {
			panic("a panic that a test wants at " + step)
		}
	}
}

// stty shows whether a terminal has lines and echoes what is typed.
const stty = "stty -a | grep -o -w -e -icanon -e -echo -e icanon -e echo"

// kill sends a signal to the process of top that runs in the terminal.
func (x *terminal) kill(sig syscall.Signal) {
	x.t.Helper()
	all := []string{strings.TrimSpace(x.tmux("display-message", "-p", "#{pane_pid}"))}
	for len(all) > 0 {
		pid := all[0]
		words, err := os.ReadFile("/proc/" + pid + "/cmdline")
		if err != nil {
			x.t.Fatal(err)
		}
		if args := strings.Split(string(words), "\x00"); len(args) > 1 && args[1] == "top" {
			number, _ := strconv.Atoi(pid)
			if err := syscall.Kill(number, sig); err != nil {
				x.t.Fatal(err)
			}
			return
		}
		children, err := os.ReadFile("/proc/" + pid + "/task/" + pid + "/children")
		if err != nil {
			x.t.Skip(err)
		}
		all = append(all[1:], strings.Fields(string(children))...)
	}
	x.t.Fatal("top does not run in the terminal")
}

// cursor returns 1 if the cursor is visible, and 1 if the screen is that of a program and not of the
// shell.
func (x *terminal) cursor() string {
	return strings.TrimSpace(x.tmux("display-message", "-p", "#{cursor_flag} #{alternate_on}"))
}

// TestTopPanics: a panic of either goroutine of top leaves the terminal as it was, and its text can be
// read.
func TestTopPanics(t *testing.T) {
	t.Parallel()
	admin, file := serveStub(t, &stubDaemon{overview: "well"}), filepath.Join(t.TempDir(), "stderr")
	for _, step := range []string{"draw", "sample"} {
		script := "echo before; cistern top --every 200ms --admin " + admin + " 2>" + file + "; echo ended $?; head -n 1 " + file + "; " + stty
		x := newTerminal(t, 120, 40, script, panicVariable+"="+step)
		screen := x.await("exit ")
		if !strings.HasPrefix(screen, "before\nended 2\n") || !strings.Contains(screen, "a panic that a test wants at "+step) || !strings.Contains(screen, "\nicanon\necho\nexit 0\n") || x.cursor() != "1 0" {
			t.Errorf("%s: cursor and other screen %s:\n%s", step, x.cursor(), screen)
		}
	}
}

// TestTopSuspends: Ctrl-Z gives the terminal back to the shell, and fg continues top.
func TestTopSuspends(t *testing.T) {
	t.Parallel()
	admin := serveStub(t, &stubDaemon{overview: "well"})
	x := newTerminal(t, 100, 30, "PS1='shell> ' bash --norc --noprofile -i")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	x.await("shell>")
	x.tmux("send-keys", self+" top --admin "+admin, "Enter")
	for round := range 4 {
		x.await("q ends")
		x.kill(syscall.SIGCONT) // as fg has, and a shell may do it twice
		x.tmux("send-keys", "C-z")
		x.await("Stopped")
		if x.cursor() != "1 0" {
			t.Errorf("cursor and other screen %s:\n%s", x.cursor(), x.screen(false))
		}
		shown := fmt.Sprint("shown ", round) // not what the last round left on the screen
		x.tmux("send-keys", "clear; "+stty+"; echo sh''own "+fmt.Sprint(round), "Enter")
		if screen := x.await(shown); !strings.Contains(screen, "icanon\necho\n"+shown) || strings.Contains(screen, "-icanon") {
			t.Errorf("the shell got the terminal as:\n%s", screen)
		}
		x.tmux("send-keys", "fg", "Enter")
		x.await("q ends")
		if x.cursor() != "0 1" {
			t.Errorf("continued with %s:\n%s", x.cursor(), x.screen(false))
		}
	}
	x.tmux("send-keys", "q")
	x.await("\nshell>\n") // top reads what is typed until it has ended
	x.tmux("send-keys", "clear; "+stty+"; echo en''ded", "Enter")
	if screen := x.await("ended"); !strings.Contains(screen, "icanon\necho\nended") || strings.Contains(screen, "-icanon") || x.cursor() != "1 0" {
		t.Errorf("q left the terminal with %s:\n%s", x.cursor(), screen)
	}
}

// TestTopRestoresTerminal: signals leave the terminal as it was. SIGTERM and SIGINT end top as q does.
// SIGQUIT prints the stacks of all goroutines.
func TestTopRestoresTerminal(t *testing.T) {
	t.Parallel()
	admin, file := serveStub(t, &stubDaemon{overview: "well"}), filepath.Join(t.TempDir(), "stderr")
	for sig, ended := range map[syscall.Signal]string{syscall.SIGTERM: "ended 0", syscall.SIGINT: "ended 0", syscall.SIGQUIT: "ended 2", syscall.SIGHUP: "ended 129"} {
		x := newTerminal(t, 80, 24, "echo before; cistern top --admin "+admin+" 2>"+file+"; echo ended $?; "+stty)
		x.await("q ends")
		x.kill(sig)
		wantRestored(t, x, ended)
		stderr, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		// This goroutine is not the one that prints.
		if stacks := strings.Contains(string(stderr), "(*topSession).live("); stacks != (sig == syscall.SIGQUIT) {
			t.Errorf("%s: standard error has:\n%s", sig, stderr)
		}
		if x.cursor() != "1 0" {
			t.Errorf("%s: cursor and other screen %s", sig, x.cursor())
		}
	}
}

// TestTopRows prints rows where there is no terminal.
func TestTopRows(t *testing.T) {
	t.Parallel()
	admin := serveStub(t, &stubDaemon{overview: "well"})
	x := newTerminal(t, 120, 24, "cistern top --every 200ms --admin "+admin+" | head -n 3 | tee /dev/null; echo done")
	goldenScreen(t, "top_pipe", x.await("done"))
}
