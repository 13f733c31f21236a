package console

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/term"
)

// Terminal is a writer with one line at its end that is redrawn in place. If the output is not a
// terminal, the line is never drawn.
type Terminal struct {
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

// New returns a Terminal that writes to out. TERM and NO_COLOR in environ decide whether it uses
// colours.
func New(out io.Writer, environ []string) *Terminal {
	t := &Terminal{out: out, fd: -1}
	if !IsTerminal(out) || slices.Contains(environ, "TERM=dumb") {
		return t
	}
	t.fd, t.ascii = int(out.(*os.File).Fd()), slices.Contains(environ, "TERM=linux")
	t.color = !slices.ContainsFunc(environ, func(kv string) bool {
		return strings.HasPrefix(kv, "NO_COLOR=") && kv != "NO_COLOR="
	})
	return t
}

// IsTerminal reports whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Live reports whether the line is drawn.
func (t *Terminal) Live() bool { return t.fd >= 0 }

// ASCII reports whether the terminal cannot show the characters of progress bars.
func (t *Terminal) ASCII() bool { return t.ascii }

// Columns returns the width of the terminal, or plainColumns for other output.
func (t *Terminal) Columns() int {
	if !t.Live() {
		return plainColumns
	}
	if width, _, err := term.GetSize(t.fd); err == nil && width > 0 {
		return width
	}
	return terminalColumns
}

// Write writes p above the line.
func (t *Terminal) Write(p []byte) (int, error) {
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

// Draw replaces the line; "" removes it.
func (t *Terminal) Draw(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.Live() || line == t.line {
		return
	}
	t.line = line
	fmt.Fprint(t.out, "\r\x1b[K"+line)
}

// Paint colours text if the terminal has colours. The color "" is the terminal's own.
func (t *Terminal) Paint(color, text string) string {
	if !t.color || color == "" || text == "" {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

// Colours for Paint.
const (
	Bold   = "1"
	Dim    = "2"
	Red    = "31"
	Green  = "32"
	Yellow = "33"
	Cyan   = "36"
)
