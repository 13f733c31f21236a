package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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

// TestTopRestoresTerminal: SIGTERM ends top as q does.
func TestTopRestoresTerminal(t *testing.T) {
	t.Parallel()
	admin := serveStub(t, &stubDaemon{overview: "well"})
	x := newTerminal(t, 80, 24, "echo before; cistern top --admin "+admin+"; echo ended $?; stty -a | grep -o -w -e -icanon -e -echo -e icanon -e echo")
	x.await("q ends")
	shell := strings.TrimSpace(x.tmux("display-message", "-p", "#{pane_pid}"))
	children, err := os.ReadFile("/proc/" + shell + "/task/" + shell + "/children")
	if err != nil {
		t.Skip(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(children), &pid); err != nil {
		t.Fatalf("the shell runs %q: %v", children, err)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	wantRestored(t, x, "ended 0")
}

// TestTopRows prints rows where there is no terminal.
func TestTopRows(t *testing.T) {
	t.Parallel()
	admin := serveStub(t, &stubDaemon{overview: "well"})
	x := newTerminal(t, 120, 24, "cistern top --every 200ms --admin "+admin+" | head -n 3 | tee /dev/null; echo done")
	goldenScreen(t, "top_pipe", x.await("done"))
}
