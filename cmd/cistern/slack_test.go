//go:build linux && cgo

package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const slackVariable = "CISTERNTEST_SLACK"

// TestSlack: timers of the process may be a millisecond late, unless the operator chose how late.
func TestSlack(t *testing.T) {
	if os.Getenv(slackVariable) != "" {
		fmt.Println(slack(t))
		return
	}
	t.Parallel()
	for _, row := range []struct{ inherited, want int }{
		{50_000, 1_000_000}, // the default of Linux
		{70_000, 70_000},    // chosen
	} {
		if got := slackOfChild(t, row.inherited); got != fmt.Sprint(row.want) {
			t.Errorf("a process that inherits a slack of %d ns has %s, want %d", row.inherited,
				got, row.want)
		}
	}
}

func slack(t *testing.T) int {
	t.Helper()
	got, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// slackOfChild runs this test in a child, which inherits the slack of the thread that starts it.
func slackOfChild(t *testing.T, inherited int) string {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	was := slack(t)
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(inherited), 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(was), 0, 0, 0) }()
	c := exec.Command(os.Args[0], "-test.run", "^TestSlack$")
	c.Env = append(os.Environ(), slackVariable+"=1")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}
