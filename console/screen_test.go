package console

import (
	"errors"
	"io"
	"slices"
	"testing"
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
