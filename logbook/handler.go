package logbook

import (
	"context"
	"errors"
	"log/slog"
)

// handler adds records to a Book, and passes them on.
type handler struct {
	book   *Book
	next   slog.Handler
	format slog.Handler // writes attributes to book.text, under book.mu
}

// Handler returns a handler that adds records to the Book, and passes those on that next takes.
func (b *Book) Handler(next slog.Handler) slog.Handler {
	return &handler{b, next, slog.NewTextHandler(&b.text, &slog.HandlerOptions{
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) > 0 {
				return a
			}
			_, level := a.Value.Any().(slog.Level)
			message := a.Key == slog.MessageKey && a.Value.String() == ""
			if message || level && a.Key == slog.LevelKey {
				return slog.Attr{} // Line has them
			}
			return a
		}})}
}

// Enabled reports whether the Book or the next handler takes records of a level.
func (h *handler) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo || h.next.Enabled(ctx, level)
}

// Handle adds a record to the Book and passes it on. An error is one of the next handler.
func (h *handler) Handle(ctx context.Context, rec slog.Record) (err error) {
	if h.next.Enabled(ctx, rec.Level) {
		err = h.next.Handle(ctx, rec.Clone())
	}
	if rec.Level < slog.LevelInfo {
		return err
	}
	return errors.Join(err, h.book.add(ctx, rec, h.format))
}

// WithAttrs returns a handler whose records have attrs too.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{h.book, h.next.WithAttrs(attrs), h.format.WithAttrs(attrs)}
}

// WithGroup returns a handler that puts the attributes that follow in a group.
func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.book, h.next.WithGroup(name), h.format.WithGroup(name)}
}
