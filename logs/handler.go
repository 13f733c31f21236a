package logs

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"time"
)

// Options of New. The zero value of a field takes the default.
type Options struct {
	// Output takes the lines. Default: they are discarded.
	Output io.Writer
	// JSON writes each line as a JSON object. Default: key=value pairs.
	JSON bool
	// Level is the least severe level that is written. Default: info.
	Level slog.Level
	// Burst is how many lines of one kind are written in Window. Defaults: 20, in one minute.
	Burst  int
	Window time.Duration
}

// Handler is the slog.Handler of the daemon.
type Handler struct {
	next slog.Handler
	*shared
}

// shared is what a Handler and those derived from it have in common.
type shared struct {
	root    slog.Handler // without attributes
	written slog.Handler // root without what Through adds
	kinds   *kinds
	metrics *metrics
}

// New returns a Handler.
func New(o Options) *Handler {
	if o.Output == nil {
		o.Output = io.Discard
	}
	var next slog.Handler
	if o.JSON {
		next = slog.NewJSONHandler(o.Output, &slog.HandlerOptions{Level: o.Level,
			ReplaceAttr: readable})
	} else {
		next = slog.NewTextHandler(o.Output, &slog.HandlerOptions{Level: o.Level})
	}
	return &Handler{next, &shared{root: next, written: next, metrics: newMetrics(),
		kinds: newKinds(cmp.Or(o.Burst, 20), cmp.Or(o.Window, time.Minute))}}
}

// readable has durations written as in lines of text, such as 1m30s, not as nanoseconds.
func readable(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

// Through returns a Handler whose lines, without those that are left out, also go through what wrap
// makes of the handler that writes them. It counts lines together with h.
func (h *Handler) Through(wrap func(slog.Handler) slog.Handler) *Handler {
	s := *h.shared
	s.root = wrap(h.root)
	return &Handler{wrap(h.next), &s}
}

// Enabled implements slog.Handler.
func (h *Handler) Enabled(ctx context.Context, l slog.Level) bool { return h.next.Enabled(ctx, l) }

// WithAttrs implements slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &Handler{h.next.WithAttrs(attrs), h.shared}
}

// WithGroup implements slog.Handler.
func (h *Handler) WithGroup(name string) slog.Handler {
	return &Handler{h.next.WithGroup(name), h.shared}
}

// Handle writes a line, or counts it as left out.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	count := 0.0
	if h.written.Enabled(ctx, r.Level) { // else the line is not for the log
		count = 1
	}
	h.metrics.lines(r.Level).Add(count)
	if r.Level < slog.LevelInfo {
		return h.next.Handle(ctx, r)
	}
	ended := h.kinds.sweep(r.Time)
	left, write := h.kinds.admit(kind{r.Level, r.Message}, r.Time)
	err := h.report(ctx, r.Time, ended)
	if !write {
		h.metrics.leftOut(r.Level).Add(count)
		return err
	}
	if left > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("left_out", left))
	}
	return errors.Join(err, h.next.Handle(ctx, r))
}

// Flush reports the lines that were left out and not reported yet. It is called before the process
// ends.
func (h *Handler) Flush(now time.Time) error {
	return h.report(context.Background(), now, h.kinds.drain())
}

// report writes a line about each kind of which lines were left out.
func (h *Handler) report(ctx context.Context, now time.Time, ended []omission) error {
	var errs []error
	for _, o := range ended {
		r := slog.NewRecord(now, o.level, "lines like an earlier one were left out", 0)
		r.AddAttrs(slog.String("line", o.message), slog.Int("left_out", o.left))
		errs = append(errs, h.root.Handle(ctx, r))
	}
	return errors.Join(errs...)
}
