package fetch

import (
	"context"
	"io"
	"sync"
	"time"

	"cistern/backfill/pace"
	"cistern/ingest/identity"

	"golang.org/x/sync/errgroup"
)

// TakeIndexes takes n bytes of what indexes may have.
func TakeIndexes(c *Copier, n int64) bool { return c.indexes.take(n) }

// IndexesLeft is what is not taken.
func IndexesLeft(c *Copier) int64 { return c.indexes.left.Load() }

// ZstdPermits is how many zstd bodies may be open at a time, and how many are not taken.
func ZstdPermits(c *Copier) (all, free int64) {
	return c.decode.permits.all, c.decode.permits.left.Load()
}

// Transfer reads a body under the watch of a fetch.
func Transfer(ctx context.Context, o Options, body io.Reader) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	o.Keys, o.Crowded = new(identity.Directory), func() bool { return false }
	c, err := New(o)
	if err != nil {
		return err
	}
	return c.read(ctx, cancel, body)
}

// Transfers reads n bodies at a time, each under the watch of a fetch with a permit of its own,
// while a host waits for a permit. It gives how each ended.
func Transfers(ctx context.Context, o Options, n int, body func() io.Reader) []error {
	var mu sync.Mutex
	sched := pace.NewScheduler(o.Concurrency)
	o.Keys = new(identity.Directory)
	o.Crowded = func() bool {
		mu.Lock()
		defer mu.Unlock()
		return sched.Crowded()
	}
	c, err := New(o)
	if err != nil {
		return []error{err}
	}
	hosts := make([]pace.Host, n+1)
	for i := range hosts {
		hosts[i].Configure(pace.Limits{Min: 1, Max: 1}, false)
	}
	errs := make([]error, n)
	var g errgroup.Group
	for i := range n {
		p := sched.Begin(&hosts[i], time.Now())
		g.Go(func() error {
			ctx, cancel := context.WithCancelCause(ctx)
			defer cancel(nil)
			errs[i] = c.read(ctx, cancel, body())
			mu.Lock()
			defer mu.Unlock()
			sched.Return(&hosts[i], p, time.Now())
			return nil
		})
	}
	mu.Lock()
	sched.Offer(&hosts[n], time.Now())
	mu.Unlock()
	_ = g.Wait() // errs has them
	return errs
}

func (c *Copier) read(ctx context.Context, cancel context.CancelCauseFunc, body io.Reader) error {
	tr := c.newTransfer(cancel)
	defer tr.end()
	tr.body = body
	tr.begun.Store(true)
	tr.since.Store(0)
	p := make([]byte, 1<<20)
	for {
		_, err := tr.Read(p)
		switch {
		case err == io.EOF:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
	}
}
