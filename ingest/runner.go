package ingest

import (
	"context"

	"cistern/store"
)

// Runner follows sources.
type Runner struct {
	opts Options
}

// New makes a Runner. Nothing happens before Run.
func New(opts Options) (*Runner, error) { return nil, errNotWritten }

// Run works until ctx ends, and returns when everything it started has returned; events read before have been
// handled by then, or will be read again. An error means that the store failed. It may be called again.
func (r *Runner) Run(ctx context.Context) error { return errNotWritten }

// Drain says that did's row became draining. It never blocks; without it the next event or the next
// Run finds the row.
func (r *Runner) Drain(did string) {}

// SetPaused closes all connections, or opens them again. What was read is handled.
func (r *Runner) SetPaused(paused bool) {}

// Paused is what SetPaused said last.
func (r *Runner) Paused() bool { return false }

// AddSource follows one more source from now on, and after a restart. Replaces the one with the same URL.
func (r *Runner) AddSource(src store.Source) error { return errNotWritten }

// RemoveSource stops following a source, given in any form that ParseSource reads: store.ErrNotFound if there is none. One that the
// Options name is back after a restart.
func (r *Runner) RemoveSource(url string) error { return errNotWritten }

// ForgetCursor forgets how far a source was read and connects it anew at its tip: store.ErrNotFound if it has no cursor.
func (r *Runner) ForgetCursor(url string) error { return errNotWritten }

// Sources tells of every source, in order of URL.
func (r *Runner) Sources() []SourceStatus { return nil }
