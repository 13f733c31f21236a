package client_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"cistern/client"
	"cistern/console"

	"github.com/mattn/go-runewidth"
	"golang.org/x/sys/unix"
)

// openTerminal opens a terminal of this width.
func openTerminal(t *testing.T, columns uint16) *os.File {
	t.Helper()
	ptmx, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no terminals here: ", err)
	}
	t.Cleanup(func() { _ = ptmx.Close() })
	fd := int(ptmx.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tty.Close() })
	if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}); err != nil {
		t.Fatal(err)
	}
	return tty
}

// TestLinesOnTerminals cuts lines at the width of a terminal, colours them, and escapes rows.
func TestLinesOnTerminals(t *testing.T) {
	t.Parallel()
	told := `{"id":9,"type":"identity","identity":{"did":"did:web:b","handle":"b.test"}}`
	known := `{"id":9,"type":"account","account":{"did":"did:web:b","active":true}}`
	for columns := uint16(5); columns < 200; columns += 3 {
		lines := client.NewLines(console.New(openTerminal(t, columns), []string{"NO_COLOR=1"}))
		for _, text := range []string{post(`{"text":"青空青空 and more that has to be cut off somewhere here, and still more of it ` + strings.Repeat("long ", 50) + `"}`), told, known} {
			got := lines.Line(event(t, text))
			if width := runewidth.StringWidth(got); width >= int(columns) || strings.Contains(got, "\x1b") {
				t.Errorf("%d columns: %q takes %d", columns, got, width)
			}
		}
	}
	lines := client.NewLines(console.New(openTerminal(t, 100), nil))
	lines.Line(event(t, told))
	for text, want := range map[string]string{
		post(`{"text":"hi"}`): "\x1b[2m     7\x1b[0m did:plc:ew…64oiz \x1b[32mcreate  \x1b[0m app.bsky.feed.post/3kabc \x1b[2mhi\x1b[0m",
		known:                 "\x1b[2m     9\x1b[0m b.test           \x1b[36maccount \x1b[0m active",
	} {
		if got := lines.Line(event(t, text)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	text := post("{\"text\":\"a\u009b2J\\u001b\u202e\U000e0001é\"}")
	got := lines.Row(event(t, text))
	if !strings.Contains(got, `"a\u009b2J\u001b\u202e\udb40\udc01é"`) {
		t.Errorf("%q became %q", text, got)
	}
}
