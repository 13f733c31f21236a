package backup

import (
	"context"
	"errors"
	"slices"
	"sync"

	"cistern/store"

	"golang.org/x/sync/errgroup"
)

// Lender makes checkpoints for commands, in an operation of maintenance: so it is shown, and waits
// while the daemon is suspended, the disk is short, or tables are rewritten that a checkpoint would
// keep on the disk.
type Lender struct {
	make  func(context.Context) (*store.Checkpoint, error)
	await func(context.Context) error

	mu    sync.Mutex
	asked []*borrower // mu guards
}

// NewLender returns a lender of what checkpoint makes. await requests a run of the operation, which
// calls Run, and returns its result.
func NewLender(checkpoint func(context.Context) (*store.Checkpoint, error),
	await func(context.Context) error) *Lender {
	return &Lender{make: checkpoint, await: await}
}

// borrower waits for a checkpoint.
type borrower struct {
	made chan madeCheckpoint
	gone chan struct{} // closed when it waits no more
}

type madeCheckpoint struct {
	*store.Checkpoint
	err error
}

// errNoCheckpoint means that the operation ended without an error and without a checkpoint.
var errNoCheckpoint = errors.New("no checkpoint was made")

// Borrow requests a run of the operation, and returns the checkpoint that it makes. The caller
// closes it.
func (l *Lender) Borrow(ctx context.Context) (*store.Checkpoint, error) {
	b := &borrower{made: make(chan madeCheckpoint), gone: make(chan struct{})}
	l.mu.Lock()
	l.asked = append(l.asked, b)
	l.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	var g errgroup.Group
	defer func() {
		close(b.gone)
		l.mu.Lock()
		l.asked = slices.DeleteFunc(l.asked, func(other *borrower) bool { return other == b })
		l.mu.Unlock()
		cancel() // takes the request back, if an earlier run has met it
		_ = g.Wait()
	}()
	result := make(chan error, 1)
	g.Go(func() error {
		result <- l.await(ctx)
		return nil
	})
	select {
	case m := <-b.made:
		return m.Checkpoint, m.err
	case err := <-result:
		if err == nil {
			err = errNoCheckpoint
		}
		return nil, err
	}
}

// Run makes a checkpoint for each borrower. If ctx ends, the others wait for the next run.
func (l *Lender) Run(ctx context.Context) error {
	var errs []error
	for {
		b := l.next()
		if b == nil {
			return errors.Join(errs...)
		}
		made, err := l.make(ctx)
		if ctx.Err() != nil {
			l.putBack(b)
			if made != nil {
				err = made.Close()
			}
			return errors.Join(ctx.Err(), err)
		}
		if err != nil && !errors.Is(err, store.ErrCheckpoints) {
			errs = append(errs, err)
		}
		select {
		case b.made <- madeCheckpoint{made, err}:
		case <-b.gone:
			if made != nil {
				errs = append(errs, made.Close())
			}
		}
	}
}

func (l *Lender) next() *borrower {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.asked) == 0 {
		return nil
	}
	b := l.asked[0]
	l.asked = l.asked[1:]
	return b
}

// putBack has a borrower wait for the next run, unless it waits no more.
func (l *Lender) putBack(b *borrower) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-b.gone:
	default:
		l.asked = slices.Insert(l.asked, 0, b)
	}
}
