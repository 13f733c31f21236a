package console

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
)

// TestParseKeys: keys are found in whatever parts a terminal sends them, and others are skipped.
func TestParseKeys(t *testing.T) {
	t.Parallel()
	want := []Key{Up, Down, PageDown, PageUp, Home, End, Quit}
	input := "\x1b[A\x1b[C\x1b[B\x1b[6~\x1b[5~x\x1b[H\x1b[4~\x1b\x03"
	for split := range len(input) {
		first, rest := parseKeys([]byte(input[:split]))
		second, rest := parseKeys(append(rest, input[split:]...))
		if got := append(first, second...); !slices.Equal(got, want) || len(rest) > 0 {
			t.Errorf("split at %d: %v, then %q", split, got, rest)
		}
	}
}

// TestScreenNeedsTerminal: what is not a terminal is no screen, and gets nothing written.
func TestScreenNeedsTerminal(t *testing.T) {
	t.Parallel()
	if s, err := OpenScreen(nil, io.Discard, nil); !errors.Is(err, ErrNoScreen) {
		t.Errorf("%v, %v", s, err)
	}
}

// TestScreenAfterClose: the last thing that a screen writes gives the terminal back, also if another
// goroutine shows, suspends and resumes it meanwhile.
func TestScreenAfterClose(t *testing.T) {
	t.Parallel()
	for range 20 {
		var out bytes.Buffer
		s := &Screen{Terminal: &Terminal{out: &out}}
		s.enter = func(first string) error {
			out.WriteString(first + enterScreen)
			return nil
		}
		s.leave = func() error {
			out.WriteString(leaveScreen)
			return nil
		}
		var g errgroup.Group
		begun := make(chan struct{})
		g.Go(func() error {
			for i := range 1000 {
				if i == 10 {
					close(begun)
				}
				if err := errors.Join(s.Show([]string{strconv.Itoa(i)}), s.Suspend(func() {}), s.Resume()); err != nil {
					return err
				}
			}
			return nil
		})
		<-begun
		if err := errors.Join(s.Close(), g.Wait()); err != nil {
			t.Fatal(err)
		}
		if text := out.String(); !strings.HasSuffix(text, leaveScreen) || !strings.Contains(text, "\x1b[H9\x1b[K") {
			t.Fatalf("the screen ends with %q", text[max(0, len(text)-80):])
		}
	}
}
