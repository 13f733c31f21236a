package hosts

import (
	"context"
	"io"
)

// countedBody has what is read of a body counted, and waited for.
type countedBody struct {
	io.ReadCloser
	receive func(n int) error
}

// Read reads, and then waits as long as the count demands.
func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		if late := b.receive(n); late != nil && err == nil {
			err = late
		}
	}
	return n, err
}

// counted returns a body whose bytes Options.Receive is told of.
func (t *Table) counted(ctx context.Context, body io.ReadCloser) io.ReadCloser {
	if t.opts.Receive == nil {
		return body
	}
	return &countedBody{body, func(n int) error { return t.opts.Receive(ctx, n) }}
}
