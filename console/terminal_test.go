package console

import (
	"bytes"
	"testing"
)

// TestTerminalLine checks that log lines appear above the line that is redrawn.
func TestTerminalLine(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	term := &Terminal{out: &out, fd: 0}
	term.Draw("50%")
	term.Draw("50%")
	if _, err := term.Write([]byte("a message\n")); err != nil {
		t.Fatal(err)
	}
	term.Draw("")
	if want := "\r\x1b[K50%\r\x1b[Ka message\n50%\r\x1b[K"; out.String() != want {
		t.Errorf("got %q, want %q", &out, want)
	}
}
