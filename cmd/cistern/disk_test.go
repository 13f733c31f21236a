package main

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestDiskGuard lets a disk become full, be emptied, and become full for good.
func TestDiskGuard(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var free atomic.Uint64
		free.Store(500)
		g := newDiskGuard("/data", reserve{bytes: 100}, slog.New(slog.DiscardHandler))
		g.free = func(string) (uint64, uint64, error) { return free.Load(), 1000, nil }
		var mu sync.Mutex
		runs, running := 0, false
		mark := func(started int, now bool) { mu.Lock(); runs, running = runs+started, now; mu.Unlock() }
		list := []box{
			{"backfill", func(ctx context.Context) error {
				return g.whileRoom(ctx, func(ctx context.Context) error {
					mark(1, true)
					<-ctx.Done()
					mark(0, false)
					return nil
				})
			}},
			{"disk", g.Run},
		}
		result := make(chan error, 1)
		go func() { result <- boxes{list: list, budget: time.Second}.Run(t.Context()) }()
		for _, step := range []struct {
			free    uint64
			running bool
			runs    int
		}{{500, true, 1}, {99, false, 1}, {25, false, 1}, {101, true, 2}, {500, true, 2}, {99, false, 2}} {
			free.Store(step.free)
			time.Sleep(2 * diskEvery)
			synctest.Wait()
			mu.Lock()
			if running != step.running || runs != step.runs {
				t.Errorf("%d free: running %t, %d runs; want %t, %d", step.free, running, runs, step.running, step.runs)
			}
			mu.Unlock()
		}
		free.Store(24)
		if err := <-result; err == nil || !strings.Contains(err.Error(), "--disk-reserve") || !strings.Contains(err.Error(), "24 B free") {
			t.Errorf("stopped with %v", err)
		}
	})
}

func TestDiskFree(t *testing.T) {
	t.Parallel()
	free, total, err := diskFree(t.TempDir())
	if err != nil || total == 0 || free > total {
		t.Errorf("%d of %d, %v", free, total, err)
	}
	if _, _, err := diskFree("/does/not/exist"); err == nil {
		t.Error("no error for a directory that is not there")
	}
}
