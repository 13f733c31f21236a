package main

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestBoxes stops in the reverse order of starting, for each way to begin stopping.
func TestBoxes(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	rows := []struct {
		name   string
		middle func(context.Context) error // of three boxes
		want   error
		order  string
	}{
		{"asked to", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, nil, "c b a"},
		{"one ends", func(context.Context) error { return nil }, nil, "b c a"},
		{"one fails", func(context.Context) error { return broken }, broken, "b c a"},
		// a is never stopped: it might be what the stuck box writes to
		{"one is stuck", func(ctx context.Context) error { <-ctx.Done(); time.Sleep(time.Hour); return nil }, errBudget, "c"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var order []string
				note := func(name string, run func(context.Context) error) box {
					return box{name, func(ctx context.Context) error {
						defer func() { mu.Lock(); order = append(order, name); mu.Unlock() }()
						return run(ctx)
					}}
				}
				wait := func(ctx context.Context) error {
					select {
					case <-ctx.Done():
					case <-time.After(2 * time.Hour): // the bubble wants goroutines to end
					}
					return nil
				}
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Minute, cancel)
				err := boxes{list: []box{note("a", wait), note("b", row.middle), note("c", wait)}, budget: time.Second}.Run(ctx)
				if !errors.Is(err, row.want) {
					t.Errorf("got %v, want %v", err, row.want)
				}
				mu.Lock()
				got := strings.Join(order, " ")
				mu.Unlock()
				if got != row.order {
					t.Errorf("ended in the order %q, want %q", got, row.order)
				}
				time.Sleep(3 * time.Hour)
			})
		})
	}
}
