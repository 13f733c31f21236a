package backup_test

import (
	"context"
	"errors"
	"runtime"
	"testing"

	"cistern/backup"
	"cistern/maintain"
	"cistern/store"
	"cistern/store/storetest"

	"golang.org/x/sync/errgroup"
)

// lending has a coordinator whose operations are checkpoint and another one, which excludes it.
type lending struct {
	*maintain.Coordinator
	lender     *backup.Lender
	hold, held chan struct{} // the other operation runs from held until hold
}

func lend(t *testing.T, by func(context.Context, *store.Store) (*store.Checkpoint, error)) *lending {
	t.Helper()
	s := storetest.Open(t, store.Options{})
	l := &lending{hold: make(chan struct{}), held: make(chan struct{})}
	l.lender = backup.NewLender(func(ctx context.Context) (*store.Checkpoint, error) { return by(ctx, s) },
		func(ctx context.Context) error { return l.Await(ctx, "checkpoint") })
	var err error
	l.Coordinator, err = maintain.New(maintain.Options{Keeper: rows{}, Operations: []maintain.Operation{
		{Name: "checkpoint", Run: func(ctx context.Context, _ *maintain.Progress) error { return l.lender.Run(ctx) }},
		{Name: "compact", Run: func(ctx context.Context, _ *maintain.Progress) error {
			l.held <- struct{}{}
			<-l.hold
			return ctx.Err()
		}}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return l
}

// is waits until the operation checkpoint is in a condition.
func (l *lending) is(want maintain.Condition) {
	for l.View().Operations[0].Condition != want {
		runtime.Gosched()
	}
}

func plain(ctx context.Context, s *store.Store) (*store.Checkpoint, error) { return s.Checkpoint(ctx) }

// TestBorrow: each borrower gets a checkpoint, once nothing runs that excludes it. A borrower that
// leaves before takes its request back.
func TestBorrow(t *testing.T) {
	t.Parallel()
	l := lend(t, plain)
	if err := l.Schedule("compact"); err != nil {
		t.Fatal(err)
	}
	<-l.held
	var all errgroup.Group
	for range 3 {
		all.Go(func() error {
			c, err := l.lender.Borrow(t.Context())
			if err != nil {
				return err
			}
			return c.Close()
		})
	}
	l.is(maintain.Pending)
	ctx, leave := context.WithCancel(t.Context())
	leave()
	if c, err := l.lender.Borrow(ctx); !errors.Is(err, context.Canceled) || c != nil {
		t.Errorf("a borrower that leaves gets %v, %v", c, err)
	}
	l.hold <- struct{}{}
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
	if n := l.lender.Asked(); n > 0 {
		t.Errorf("%d borrowers are left", n)
	}
}

// TestBorrowCancelled: a borrower is told that its request was cancelled, and that the daemon stops.
func TestBorrowCancelled(t *testing.T) {
	t.Parallel()
	l := lend(t, plain)
	if err := l.Schedule("compact"); err != nil {
		t.Fatal(err)
	}
	<-l.held
	got := make(chan error, 1)
	go func() { _, err := l.lender.Borrow(t.Context()); got <- err }()
	l.is(maintain.Pending)
	if _, err := l.Cancel("checkpoint"); err != nil {
		t.Error(err)
	}
	if err := <-got; !errors.Is(err, maintain.ErrCancelled) {
		t.Errorf("cancelled: %v", err)
	}
	l.hold <- struct{}{}
}

// TestBorrowInterrupted: a borrower whose run is interrupted gets its checkpoint when it continues. An
// error is that of the borrower, and too many checkpoints are no failure of the operation.
func TestBorrowInterrupted(t *testing.T) {
	t.Parallel()
	made := make(chan error)
	l := lend(t, func(ctx context.Context, s *store.Store) (*store.Checkpoint, error) {
		if err := <-made; err != nil {
			return nil, err
		}
		return s.Checkpoint(context.WithoutCancel(ctx))
	})
	got := make(chan error)
	borrow := func() {
		c, err := l.lender.Borrow(t.Context())
		if c != nil {
			err = errors.Join(err, c.Close())
		}
		got <- err
	}
	go borrow()
	l.is(maintain.Running)
	paused := make(chan error)
	go func() { paused <- l.Pause(t.Context(), "a test") }()
	l.is(maintain.Stopping)
	made <- nil // too late
	if err := <-paused; err != nil {
		t.Error(err)
	}
	l.Resume()
	made <- nil
	if err := <-got; err != nil {
		t.Errorf("after an interruption: %v", err)
	}
	broken := errors.New("the disk is broken")
	for _, want := range []error{store.ErrCheckpoints, broken} {
		go borrow()
		made <- want
		if err := <-got; !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	if err := l.Await(t.Context(), "checkpoint"); err != nil { // when the runs before have ended
		t.Errorf("without a borrower: %v", err)
	}
}
