package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mattn/go-runewidth"
)

// TestTableScreen: a terminal shows the rows of a table cut to its width, and a file gets them whole.
func TestTableScreen(t *testing.T) {
	t.Parallel()
	admin := serveStub(t, &stubDaemon{})
	for _, columns := range []int{80, 160} {
		x := newTerminal(t, columns, 10, "cistern alerts --admin "+admin)
		lines := strings.Split(x.await("exit 0"), "\n")
		if len(lines) < 3 || lines[2] != "exit 0" || runewidth.StringWidth(lines[1]) != columns || !strings.HasSuffix(lines[1], "…") {
			t.Errorf("%d columns: %q", columns, lines)
		}
	}
	file := filepath.Join(t.TempDir(), "alerts")
	newTerminal(t, 80, 10, "cistern alerts --admin "+admin+" > "+file).await("exit 0")
	if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), longError) {
		t.Errorf("a file gets %q (%v)", text, err)
	}
}
