package console

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// Screen is a whole terminal: a page that is redrawn, and keys. Its Close gives the terminal back
// as it was.
type Screen struct {
	*Terminal
	in   int    // descriptor of the keyboard
	rest []byte // the beginning of a key's sequence

	enter func(first string) error // takes the terminal, and writes first before all else
	leave func() error             // gives it back

	// mu guards:
	mu     sync.Mutex
	shown  string // what Show wrote last
	closed bool
	err    error // of the first Close
}

// ErrNoScreen is the error of OpenScreen if there is no terminal.
var ErrNoScreen = errors.New("not a terminal")

const (
	// enterScreen keeps what the terminal shows, clears it and hides the cursor; leaveScreen
	// brings it back.
	enterScreen = "\x1b[?1049h\x1b[2J\x1b[?25l"
	leaveScreen = "\x1b[?25h\x1b[?1049l"
)

// OpenScreen takes the terminal of in and out. It returns ErrNoScreen if one of them is not a
// terminal, or one that cannot be redrawn. The caller must call Close, also when it panics.
func OpenScreen(in io.Reader, out io.Writer, environ []string) (*Screen, error) {
	t := New(out, environ)
	keyboard, ok := in.(*os.File)
	if !ok || !t.Live() || !term.IsTerminal(int(keyboard.Fd())) {
		return nil, ErrNoScreen
	}
	s := &Screen{Terminal: t, in: int(keyboard.Fd())}
	was, err := term.GetState(s.in)
	if err != nil {
		return nil, fmt.Errorf("read the state of the terminal: %w", err)
	}
	s.enter = func(first string) error {
		if _, err := term.MakeRaw(s.in); err != nil {
			return fmt.Errorf("read single keys: %w", err)
		}
		_, err := io.WriteString(out, first+enterScreen)
		return err
	}
	s.leave = func() error {
		_, err := io.WriteString(out, leaveScreen)
		return errors.Join(err, term.Restore(s.in, was))
	}
	if err := s.enter(""); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close gives the terminal back. Further calls do nothing. Any goroutine may call it.
func (s *Screen) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed, s.err = true, s.leave()
	}
	return s.err
}

// Suspend gives the terminal back while stop runs, which stops this process until it is continued.
// Then it takes the terminal again, and the next Show writes the whole screen.
func (s *Screen) Suspend(stop func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	if err := s.leave(); err != nil {
		return err
	}
	stop()
	s.shown = ""
	return s.enter("")
}

// Resume takes the terminal again after another program may have used it, and the next Show writes
// the whole screen. The terminal stays in raw mode meanwhile: otherwise the kernel could handle a
// Ctrl-Z, and would stop this process while its screen is shown.
func (s *Screen) Resume() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.shown = ""
	return s.enter(leaveScreen)
}

// Size returns the columns and rows of the terminal.
func (s *Screen) Size() (columns, rows int) {
	columns, rows, err := term.GetSize(s.fd)
	if err != nil || columns <= 0 || rows <= 0 {
		return terminalColumns, terminalRows
	}
	return columns, rows
}

// terminalRows is the height of a terminal that does not report one.
const terminalRows = 24

// Show replaces what the screen shows. There must be no more lines than rows, and none wider than
// the screen. It writes nothing if nothing has changed, and nothing after Close.
func (s *Screen) Show(lines []string) error {
	var b strings.Builder
	b.WriteString("\x1b[H")
	for i, l := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(l + "\x1b[K")
	}
	b.WriteString("\x1b[J")
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || b.String() == s.shown {
		return nil
	}
	s.shown = b.String()
	_, err := io.WriteString(s.out, s.shown)
	return err
}

// Key is a key that a Screen distinguishes.
type Key int

// Keys. NoKey is any other one, or none.
const (
	NoKey Key = iota
	Quit      // q, or Ctrl-C
	Up
	Down
	PageUp
	PageDown
	Home
	End
	Pause // Ctrl-Z
)

// sequence is what terminals send for a key.
type sequence struct {
	text string
	key  Key
}

// sequences are those of all keys. Nothing changes them.
var sequences = []sequence{
	{"q", Quit}, {"Q", Quit}, {"\x03", Quit}, {"\x1a", Pause}, {"k", Up}, {"j", Down},
	{" ", PageDown}, {"b", PageUp},
	{"g", Home}, {"G", End},
	{"\x1b[A", Up}, {"\x1bOA", Up}, {"\x1b[B", Down}, {"\x1bOB", Down}, {"\x1b[5~", PageUp},
	{"\x1b[6~", PageDown}, {"\x1b[H", Home}, {"\x1bOH", Home}, {"\x1b[1~", Home}, {"\x1b[F", End},
	{"\x1bOF", End}, {"\x1b[4~", End},
}

// Keys waits for keys until some were pressed or the time is over, and returns them. It returns
// io.EOF once the terminal is gone.
func (s *Screen) Keys(wait time.Duration) ([]Key, error) {
	poll := []unix.PollFd{{Fd: int32(s.in), Events: unix.POLLIN}}
	n, err := unix.Poll(poll, int(wait.Milliseconds()))
	switch {
	case errors.Is(err, unix.EINTR), err == nil && n == 0:
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("wait for keys: %w", err)
	}
	buffer := make([]byte, 256)
	if n, err = unix.Read(s.in, buffer); errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
		return nil, nil
	}
	if err != nil || n == 0 {
		return nil, io.EOF
	}
	var keys []Key
	keys, s.rest = parseKeys(append(s.rest, buffer[:n]...))
	return keys, nil
}

// parseKeys returns the keys of input, and its end if that is the beginning of a sequence. What is
// no key is skipped.
func parseKeys(input []byte) (keys []Key, rest []byte) {
	for text := string(input); text != ""; {
		i := slices.IndexFunc(sequences, func(s sequence) bool { return strings.HasPrefix(text, s.text) })
		if i >= 0 {
			keys, text = append(keys, sequences[i].key), text[len(sequences[i].text):]
			continue
		}
		if text == "\x1b" || text == "\x1b[" || text == "\x1bO" || len(text) == 3 && text[:2] == "\x1b[" {
			return keys, []byte(text)
		}
		text = text[1:]
	}
	return keys, nil
}
