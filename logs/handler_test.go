package logs_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"cistern/logs"

	"github.com/prometheus/client_golang/prometheus"
)

// book is a log under test, with a clock of its own.
type book struct {
	t   *testing.T
	out bytes.Buffer
	h   *logs.Handler
	now time.Time
}

func newBook(t *testing.T, o logs.Options) *book {
	b := &book{t: t, now: time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)}
	o.Output = &b.out
	b.h = logs.New(o)
	return b
}

func (b *book) line(h slog.Handler, l slog.Level, message string, attrs ...slog.Attr) {
	b.t.Helper()
	if !h.Enabled(context.Background(), l) {
		return
	}
	r := slog.NewRecord(b.now, l, message, 0)
	r.AddAttrs(attrs...)
	if err := h.Handle(context.Background(), r); err != nil {
		b.t.Fatal(err)
	}
}

// take returns the lines that were written since the last call, without their times.
func (b *book) take() (lines []string) {
	for line := range strings.Lines(b.out.String()) {
		_, line, _ = strings.Cut(strings.TrimSpace(line), " ")
		lines = append(lines, line)
	}
	b.out.Reset()
	return lines
}

func (b *book) want(want ...string) {
	b.t.Helper()
	if got := b.take(); fmt.Sprint(got) != fmt.Sprint(want) {
		b.t.Errorf("lines:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestHandlerLimits: of one kind, a burst is written in a window, the next line counts the others,
// and other kinds are not affected.
func TestHandlerLimits(t *testing.T) {
	t.Parallel()
	b := newBook(t, logs.Options{Burst: 2})
	derived := b.h.WithAttrs([]slog.Attr{slog.String("source", "a")})
	for range 3 {
		b.line(b.h, slog.LevelWarn, "source failed")
		b.line(derived, slog.LevelWarn, "source failed") // is of the same kind
	}
	b.line(b.h, slog.LevelError, "source failed") // another level is another kind
	b.line(b.h, slog.LevelWarn, "disk is slow")
	b.want("level=WARN msg=\"source failed\"", "level=WARN msg=\"source failed\" source=a",
		"level=ERROR msg=\"source failed\"", "level=WARN msg=\"disk is slow\"")
	b.now = b.now.Add(59 * time.Second)
	b.line(b.h, slog.LevelWarn, "source failed")
	b.want()
	b.now = b.now.Add(time.Second)
	b.line(derived, slog.LevelWarn, "disk is slow") // ends the windows
	b.want("level=WARN msg=\"lines like an earlier one were left out\" line=\"source failed\" left_out=5",
		"level=WARN msg=\"disk is slow\" source=a")
	b.line(b.h, slog.LevelWarn, "source failed")
	b.want("level=WARN msg=\"source failed\"")
}

// TestHandlerCountsInTheNextLine: what was left out after the last look for ended windows is an
// attribute of the next line of the kind.
func TestHandlerCountsInTheNextLine(t *testing.T) {
	t.Parallel()
	b := newBook(t, logs.Options{Burst: 1})
	b.line(b.h, slog.LevelInfo, "first") // looks for ended windows now, and in a minute again
	b.now = b.now.Add(30 * time.Second)
	for range 4 {
		b.line(b.h, slog.LevelWarn, "webhook fails")
	}
	b.now = b.now.Add(45 * time.Second)
	b.line(b.h, slog.LevelInfo, "second")
	b.take()
	b.now = b.now.Add(20 * time.Second) // the window of the kind has ended, the next look has not come
	b.line(b.h, slog.LevelWarn, "webhook fails", slog.Int("try", 5))
	b.want("level=WARN msg=\"webhook fails\" try=5 left_out=3")
}

// TestHandlerLosesNoCount: over random kinds and times, each line is written or counted.
func TestHandlerLosesNoCount(t *testing.T) {
	t.Parallel()
	b := newBook(t, logs.Options{Burst: 3, JSON: true, Window: 10 * time.Second})
	const lines = 20_000
	for i := range lines {
		b.now = b.now.Add(time.Duration(i*7919%400) * time.Millisecond)
		if i%5000 == 4999 {
			b.now = b.now.Add(-time.Hour) // the clock is set back
		}
		b.line(b.h, slog.LevelWarn, fmt.Sprint("kind ", i*i%13))
	}
	if err := b.h.Flush(b.now); err != nil {
		t.Fatal(err)
	}
	written, left := 0, 0
	for line := range strings.Lines(b.out.String()) {
		var l struct {
			Msg     string
			LeftOut int `json:"left_out"`
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		if left += l.LeftOut; strings.HasPrefix(l.Msg, "kind") {
			written++
		}
	}
	if written+left != lines || left < lines/3 {
		t.Errorf("%d written and %d left out, of %d", written, left, lines)
	}
	if got := b.metric("cistern_log_left_out_lines_total"); got != float64(left) {
		t.Errorf("the metric has %v left out, the log %d", got, left)
	}
	if got := b.metric("cistern_log_lines_total"); got != lines {
		t.Errorf("the metric has %v lines, want %d", got, lines)
	}
}

// TestHandlerBoundsKinds: kinds beyond the bound share a place.
func TestHandlerBoundsKinds(t *testing.T) {
	t.Parallel()
	b := newBook(t, logs.Options{Burst: 1})
	for i := range 5000 {
		b.line(b.h, slog.LevelInfo, fmt.Sprint("message ", i))
	}
	if n := len(b.take()); n != 1025 {
		t.Errorf("%d lines of 5,000 kinds, want 1,024 and one of the others", n)
	}
	for range 5000 {
		b.line(b.h, slog.LevelDebug, "per item")
	}
	b.want()
}

// TestHandlerForms: the same line as text and as JSON; lines of level debug are never left out.
func TestHandlerForms(t *testing.T) {
	t.Parallel()
	attrs := []slog.Attr{slog.Duration("retry", 90*time.Second), slog.Any("err", errors.New("EOF"))}
	text := newBook(t, logs.Options{Burst: 1, Level: slog.LevelDebug})
	for range 2 {
		text.line(text.h, slog.LevelDebug, "fetch", attrs...)
	}
	text.want("level=DEBUG msg=fetch retry=1m30s err=EOF", "level=DEBUG msg=fetch retry=1m30s err=EOF")
	b := newBook(t, logs.Options{JSON: true})
	b.line(b.h.WithGroup("of"), slog.LevelError, "fetch", attrs...)
	want := `{"time":"2026-12-01T12:00:00Z","level":"ERROR","msg":"fetch",` +
		`"of":{"retry":"1m30s","err":"EOF"}}` + "\n"
	if b.out.String() != want {
		t.Errorf("got  %swant %s", &b.out, want)
	}
}

// metric returns the sum of a counter over its labels.
func (b *book) metric(name string) (sum float64) {
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(b.h)
	families, err := reg.Gather()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == name {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// TestThrough: what is left out of the log does not push other lines out of what else takes them, which
// also gets lines that are below the level of the log.
func TestThrough(t *testing.T) {
	t.Parallel()
	b := newBook(t, logs.Options{Level: slog.LevelWarn, Burst: 3})
	var also bytes.Buffer
	h := b.h.Through(func(next slog.Handler) slog.Handler {
		return tee{next, slog.NewTextHandler(&also, nil)}
	})
	b.line(h, slog.LevelInfo, "begins")
	for range 1000 {
		b.line(h.WithAttrs([]slog.Attr{slog.String("source", "a")}), slog.LevelError, "fails")
	}
	b.now = b.now.Add(time.Minute)
	b.line(h, slog.LevelInfo, "ends")
	const left = `level=ERROR msg="lines like an earlier one were left out" line=fails left_out=997`
	b.want("level=ERROR msg=fails source=a", "level=ERROR msg=fails source=a", "level=ERROR msg=fails source=a", left)
	if text := also.String(); strings.Count(text, "\n") != 6 || !strings.Contains(text, "msg=begins") || !strings.Contains(text, left) || !strings.Contains(text, "msg=ends") {
		t.Errorf("got\n%s", text)
	}
	// Lines below the level of the log are not counted.
	if all, omitted := b.metric("cistern_log_lines_total"), b.metric("cistern_log_left_out_lines_total"); all != 1000 || omitted != 997 {
		t.Errorf("%v lines, %v of them left out", all, omitted)
	}
}

// tee is a handler that has two others take lines.
type tee struct{ next, also slog.Handler }

func (h tee) Enabled(ctx context.Context, l slog.Level) bool {
	return h.next.Enabled(ctx, l) || h.also.Enabled(ctx, l)
}

func (h tee) Handle(ctx context.Context, r slog.Record) error {
	err := h.also.Handle(ctx, r.Clone())
	if h.next.Enabled(ctx, r.Level) {
		err = errors.Join(err, h.next.Handle(ctx, r))
	}
	return err
}

func (h tee) WithAttrs(a []slog.Attr) slog.Handler {
	return tee{h.next.WithAttrs(a), h.also.WithAttrs(a)}
}

func (h tee) WithGroup(name string) slog.Handler {
	return tee{h.next.WithGroup(name), h.also.WithGroup(name)}
}
