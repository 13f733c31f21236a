package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/term"
)

// terminal is a writer with one line at its end that is redrawn in place. On anything but a
// terminal the line is never drawn.
type terminal struct {
	out   io.Writer
	fd    int // -1: not a terminal
	color bool
	ascii bool

	// mu guards:
	mu   sync.Mutex
	line string
}

const (
	// terminalColumns is the width of a terminal that does not report one.
	terminalColumns = 80
	// plainColumns is the width of output that is not a terminal.
	plainColumns = 100
)

func newTerminal(out io.Writer, environ []string) *terminal {
	t := &terminal{out: out, fd: -1}
	if !isTerminal(out) || slices.Contains(environ, "TERM=dumb") {
		return t
	}
	t.fd, t.ascii = int(out.(*os.File).Fd()), slices.Contains(environ, "TERM=linux")
	t.color = !slices.ContainsFunc(environ, func(kv string) bool {
		return strings.HasPrefix(kv, "NO_COLOR=") && kv != "NO_COLOR="
	})
	return t
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// live reports whether the line is drawn.
func (t *terminal) live() bool { return t.fd >= 0 }

func (t *terminal) columns() int {
	if !t.live() {
		return plainColumns
	}
	if width, _, err := term.GetSize(t.fd); err == nil && width > 0 {
		return width
	}
	return terminalColumns
}

// Write writes p above the line.
func (t *terminal) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.line == "" {
		return t.out.Write(p)
	}
	text := "\r\x1b[K" + string(p)
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	if _, err := io.WriteString(t.out, text+t.line); err != nil {
		return 0, err
	}
	return len(p), nil
}

// draw replaces the line; "" removes it.
func (t *terminal) draw(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.live() || line == t.line {
		return
	}
	t.line = line
	fmt.Fprint(t.out, "\r\x1b[K"+line)
}

// paint colours text if the terminal has colours.
func (t *terminal) paint(color, text string) string {
	if !t.color || text == "" {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

// Colours for paint.
const (
	bold   = "1"
	dim    = "2"
	green  = "32"
	yellow = "33"
	cyan   = "36"
)
