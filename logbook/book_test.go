package logbook_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/slogtest"
	"time"
	"unicode/utf8"

	"cistern/logbook"
)

// TestLines: a Book has what was logged, whatever the level of the output.
func TestLines(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	book := logbook.New()
	log := slog.New(book.Handler(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelWarn})))
	log.Debug("not kept")
	log.Info("begins", "level", "high", "msg", "hello", "pairs", 2)
	log.With("host", "pds.example.com").WithGroup("limits").Warn("is slow", "err", errors.New("a b"), "level", slog.LevelError)
	log.Error("no attributes")
	want := []string{
		`1 INFO begins | level=high msg=hello pairs=2`,
		`2 WARN is slow | host=pds.example.com limits.err="a b" limits.level=ERROR`,
		`3 ERROR no attributes | `,
	}
	var got []string
	for _, l := range book.After(0, 100) {
		got = append(got, fmt.Sprintf("%d %s %s | %s", l.ID, l.Level, l.Message, l.Attributes))
		if time.Since(l.Time) > time.Hour || l.Time.IsZero() {
			t.Errorf("line %d is of %s", l.ID, l.Time)
		}
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if text := out.String(); strings.Count(text, "\n") != 2 || !strings.Contains(text, `msg="is slow" host=pds.example.com limits.err="a b"`) {
		t.Errorf("passed on:\n%s", text)
	}
}

// TestDebugPassesOn: what the output wants below Info is passed on, and not kept.
func TestDebugPassesOn(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	book := logbook.New()
	log := slog.New(book.Handler(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	log.Debug("one item")
	if lines := book.After(0, 100); len(lines) != 0 || !strings.Contains(out.String(), "one item") {
		t.Errorf("kept %v, passed on %q", lines, out.String())
	}
}

// TestBounds: a Book keeps its newest lines, and none is long.
func TestBounds(t *testing.T) {
	t.Parallel()
	book := logbook.New()
	log := slog.New(book.Handler(slog.DiscardHandler))
	long := strings.Repeat("é", 20_000)
	for range 734 {
		log.Info(long, "value", long)
	}
	lines := book.After(0, 10_000)
	if len(lines) != 500 || lines[0].ID != 235 || lines[499].ID != 734 {
		t.Fatalf("%d lines, from %d on", len(lines), lines[0].ID)
	}
	for _, l := range lines {
		if len(l.Message) > 520 || len(l.Attributes) > 2060 || !utf8.ValidString(l.Message+l.Attributes) {
			t.Fatalf("%d and %d bytes", len(l.Message), len(l.Attributes))
		}
	}
	for _, c := range []struct {
		after uint64
		limit int
		want  string
	}{
		{732, 10, "733 734"}, {734, 10, ""}, {500, 2, "733 734"}, {0, 0, ""}, {0, -1, ""},
		{5000, 1, "734"}, // an id of an earlier run
	} {
		var ids []string
		for _, l := range book.After(c.after, c.limit) {
			ids = append(ids, fmt.Sprint(l.ID))
		}
		if got := strings.Join(ids, " "); got != c.want {
			t.Errorf("after %d, %d: %q, want %q", c.after, c.limit, got, c.want)
		}
	}
}

// TestHandlerIsOne: the handler that is passed on to gets what it would get without the Book.
func TestHandlerIsOne(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	h := logbook.New().Handler(slog.NewJSONHandler(&out, nil))
	if err := slogtest.TestHandler(h, func() []map[string]any {
		var all []map[string]any
		for line := range strings.Lines(out.String()) {
			m := map[string]any{}
			if err := json.Unmarshal([]byte(line), &m); err != nil {
				t.Fatal(err)
			}
			all = append(all, m)
		}
		return all
	}); err != nil {
		t.Error(err)
	}
}

// TestConcurrent: lines that are logged at the same time are kept whole.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	book := logbook.New()
	var wg sync.WaitGroup
	for i := range 4 {
		log := slog.New(book.Handler(slog.NewTextHandler(io.Discard, nil))).With("writer", i)
		wg.Go(func() {
			for n := range 50 {
				log.Info("line", "n", n)
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for _, l := range book.After(0, 500) {
		seen[l.Attributes] = true
	}
	for i := range 4 {
		for n := range 50 {
			if text := fmt.Sprintf("writer=%d n=%d", i, n); !seen[text] {
				t.Errorf("lacks %s", text)
			}
		}
	}
}
