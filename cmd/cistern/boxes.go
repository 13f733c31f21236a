package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// box is a part of the daemon that runs. run returns nil when its context ended.
type box struct {
	name string
	run  func(context.Context) error
}

// boxes start in order and stop in the reverse order, each when the next has ended.
type boxes struct {
	list []box
	// budget bounds stopping all of them.
	budget time.Duration
}

// errBudget says that a box did not stop in time, so that nothing it writes to may be closed.
var errBudget = errors.New("did not stop in time")

// Run starts every box and stops them all when ctx ends or any of them ends by itself.
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
	// A box that outlives the budget, and those below it, keep running: the process ends under
	// them, and nothing is taken from under them before.
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
