package maintain_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cistern/maintain"
)

// TestPause: when Pause has returned, nothing runs and nothing is saved until Resume (invariant 8).
func TestPause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := &shelf{}
		w := newWorld(operations, nil, map[string]bool{"verify": true})
		w.shelf = k
		w.close()
		w.start()
		verify := w.tasks["verify"]
		w.do(step{verb: "schedule", op: "verify"})
		w.compare()
		w.paused = true
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := w.c.Pause(ctx, "a copy"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("while verify runs: %v", err)
		}
		w.compare()
		paused := make(chan error, 1)
		go func() { paused <- w.c.Pause(t.Context(), "a copy of the files") }()
		synctest.Wait()
		select {
		case err := <-paused:
			t.Errorf("paused while verify runs: %v", err)
		default:
		}
		w.answer(verify, answer{yield: true})
		if err := <-paused; err != nil {
			t.Error(err)
		}
		if err := w.c.Pause(t.Context(), "once more"); err != nil {
			t.Error(err)
		}
		saved := len(k.log)
		w.do(step{verb: "schedule", op: "backup"})
		w.do(step{verb: "schedule", op: "prune"})
		w.do(step{verb: "cancel", op: "prune"})
		w.do(step{verb: "short"})
		rest(time.Hour)
		w.compare()
		if v := w.c.View(); v.Paused != "once more" || v.Operations[5].Waits != "paused: once more" {
			t.Errorf("%+v", v)
		}
		if len(k.log) != saved {
			t.Error("a row was saved while paused")
		}
		w.do(step{verb: "resume"})
		synctest.Wait()
		if !k.rows["backup"].Next {
			t.Error("the request was not saved after the pause")
		}
		w.finish()
		if len(w.problems) > 0 {
			t.Error(strings.Join(w.problems, "\n"))
		}
	})
}

// TestPauseOutsideOfRun: before Run and after it nothing runs, so Pause returns at once.
func TestPauseOutsideOfRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var ran atomic.Int64
		k := &shelf{rows: map[string]maintain.Row{"a": {Name: "a", Next: true}}}
		c, err := maintain.New(maintain.Options{Keeper: k, Operations: []maintain.Operation{{Name: "a", Every: time.Hour,
			Run: func(context.Context, *maintain.Progress) error { ran.Add(1); return nil }}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Pause(t.Context(), ""); err != nil {
			t.Error(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()
		rest(2 * time.Hour)
		if ran.Load() != 0 || len(k.log) > 0 {
			t.Error("it ran, or a row was saved, while paused")
		}
		c.Resume()
		synctest.Wait()
		if ran.Load() != 1 {
			t.Errorf("ran %d times", ran.Load())
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := c.Pause(t.Context(), ""); err != nil {
			t.Error(err)
		}
		if err := c.Schedule("a"); !errors.Is(err, maintain.ErrStopped) {
			t.Errorf("schedule after the end: %v", err)
		}
		if err := c.Await(t.Context(), "a"); !errors.Is(err, maintain.ErrStopped) {
			t.Errorf("await after the end: %v", err)
		}
		if err := c.Run(t.Context()); err == nil {
			t.Error("it runs twice")
		}
	})
}

// TestResumeWhileStopping: once Run stops what runs, Resume lets nothing begin that Run would not
// wait for.
func TestResumeWhileStopping(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var begun atomic.Int64
		release := make(chan struct{})
		slow := func(ctx context.Context, _ *maintain.Progress) error {
			begun.Add(1)
			<-release
			return ctx.Err()
		}
		k := &shelf{}
		c, err := maintain.New(maintain.Options{Keeper: k,
			Operations: []maintain.Operation{{Name: "a", Run: slow}, {Name: "b", Run: slow}}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()
		c.Schedule("a")
		c.Schedule("b")
		synctest.Wait()
		stop()
		synctest.Wait()
		c.Resume()
		close(release)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if synctest.Wait(); begun.Load() != 1 {
			t.Errorf("%d operations began, one of them before Run was stopping", begun.Load())
		}
		if !k.rows["a"].Began || !k.rows["b"].Next {
			t.Errorf("saved are %+v", k.rows)
		}
	})
}
