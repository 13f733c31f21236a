package loop

import (
	"context"
	"time"
)

// Wake wakes the loop that sleeps on c, a channel with a buffer of one. Signals that were not
// received yet coalesce.
func Wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Sleep waits for a signal on c, for d to pass, or for ctx to end. A nil c has no signals.
func Sleep(ctx context.Context, d time.Duration, c <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-c:
	case <-t.C:
	}
}

// Quiet returns nil if err only reports that ctx ended, and err otherwise.
func Quiet(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
