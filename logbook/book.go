package logbook

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	// linesMax bounds the lines of a Book: 500 × 2.5 KiB in the worst case, usually 100 KB.
	linesMax           = 500
	messageBytesMax    = 512
	attributesBytesMax = 2048
)

// Line is a log record.
type Line struct {
	ID         uint64 // from 1 on
	Time       time.Time
	Level      slog.Level
	Message    string
	Attributes string // as the text handler of slog writes them: key=value key="a value"
}

// Book keeps the newest lines.
type Book struct {
	// mu guards:
	mu    sync.Mutex
	lines [linesMax]Line // by id modulo their number
	last  uint64         // id; 0: there is no line
	text  bytes.Buffer   // takes the attributes of one record from a text handler
}

// New returns an empty Book.
func New() *Book { return &Book{} }

// add adds a record whose attributes are formatted by format, which writes to b.text.
func (b *Book) add(ctx context.Context, rec slog.Record, format slog.Handler) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text.Reset()
	only := slog.NewRecord(time.Time{}, rec.Level, "", 0)
	rec.Attrs(func(a slog.Attr) bool {
		only.AddAttrs(a)
		return true
	})
	err := format.Handle(ctx, only)
	b.last++
	b.lines[b.last%linesMax] = Line{ID: b.last, Time: rec.Time, Level: rec.Level,
		Message:    clip(rec.Message, messageBytesMax),
		Attributes: clip(strings.TrimSuffix(b.text.String(), "\n"), attributesBytesMax)}
	return err
}

// After returns the newest lines with a higher id than after, at most limit, oldest first.
func (b *Book) After(after uint64, limit int) []Line {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := min(b.last, linesMax, uint64(max(0, limit)))
	if after <= b.last { // else the id is one of an earlier run of the daemon
		n = min(n, b.last-after)
	}
	lines := make([]Line, 0, n)
	for id := b.last - n + 1; id <= b.last; id++ {
		lines = append(lines, b.lines[id%linesMax])
	}
	return lines
}

// clip shortens s to most bytes, between two runes. The result shares no memory with s if it is
// shorter.
func clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return strings.Clone(s[:most]) + "…"
}
