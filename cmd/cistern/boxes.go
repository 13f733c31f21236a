package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// box is a running part of the daemon. run returns nil when its context has ended.
type box struct {
	name string
	run  func(context.Context) error
}

// boxes start in order and stop in the reverse order, each after the next has ended.
type boxes struct {
	list []box
	// budget bounds stopping all of them.
	budget time.Duration
	// stopping is called before the first box is stopped.
	stopping func()
}

// errBudget means that a box is still running, so nothing it writes to may be closed.
var errBudget = errors.New("did not stop in time")

// Run starts every box, and stops all of them when ctx ends or one of them ends by itself.
func (b boxes) Run(ctx context.Context) error {
	var g errgroup.Group
	ended := make(chan struct{}, len(b.list))
	stops := make([]context.CancelFunc, len(b.list))
	results := make([]chan error, len(b.list))
	for i, part := range b.list {
		partCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		result := make(chan error, 1)
		stops[i], results[i] = cancel, result
		g.Go(func() error {
			err := part.run(partCtx)
			if partCtx.Err() != nil && errors.Is(err, context.Canceled) {
				err = nil
			}
			if err != nil {
				err = fmt.Errorf("%s: %w", part.name, err)
			}
			result <- err
			ended <- struct{}{}
			return nil
		})
	}
	select {
	case <-ctx.Done():
	case <-ended:
	}
	b.stopping()
	// A box that exceeds the budget keeps running, and so do the boxes below it, until the process
	// ends. Nothing that they use is closed before.
	return b.stop(stops, results)
}

func (b boxes) stop(stops []context.CancelFunc, results []chan error) error {
	budget := time.NewTimer(b.budget)
	defer budget.Stop()
	var errs []error
	for i := len(b.list) - 1; i >= 0; i-- {
		stops[i]()
		select {
		case err := <-results[i]:
			errs = append(errs, err)
		case <-budget.C:
			errs = append(errs, fmt.Errorf("%s: %w (%s)", b.list[i].name, errBudget, b.budget))
			return errors.Join(errs...)
		}
	}
	return errors.Join(errs...)
}
