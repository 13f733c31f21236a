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

// slowShelf is a Keeper that saves once hold is closed.
type slowShelf struct {
	shelf
	hold chan struct{}
}

func (s *slowShelf) Save(row maintain.Row) error {
	<-s.hold
	return s.shelf.Save(row)
}

// TestStopWhilePaused: what was requested and cancelled during a pause is saved when Run ends, and no
// request is taken that would not be (invariant 8).
func TestStopWhilePaused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := &slowShelf{hold: make(chan struct{})}
		c, err := maintain.New(maintain.Options{Keeper: k, Operations: []maintain.Operation{{Name: "a", Run: nothing},
			{Name: "b", Run: nothing}, {Name: "c", Run: nothing}}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		ended, awaited := make(chan error, 1), make(chan error, 1)
		k.rows = map[string]maintain.Row{"c": {Name: "c", Next: true}}
		if err := c.Pause(t.Context(), "a copy"); err != nil {
			t.Error(err)
		}
		go func() { ended <- c.Run(ctx) }()
		synctest.Wait()
		if err := c.Schedule("a"); err != nil {
			t.Error(err)
		}
		go func() { awaited <- c.Await(t.Context(), "b") }()
		synctest.Wait()
		if _, err := c.Cancel("c"); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if len(k.log) > 0 {
			t.Error("a row was saved while paused")
		}
		stop()
		synctest.Wait()
		for _, name := range []string{"a", "c"} {
			if err := c.Schedule(name); !errors.Is(err, maintain.ErrStopped) {
				t.Errorf("schedule %s while Run ends: %v", name, err)
			}
		}
		if _, err := c.Cancel("a"); !errors.Is(err, maintain.ErrStopped) {
			t.Errorf("cancel while Run ends: %v", err)
		}
		close(k.hold) // until now rows were being saved for the last time
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := <-awaited; !errors.Is(err, maintain.ErrStopped) {
			t.Errorf("the caller that waits gets %v", err)
		}
		if !k.rows["a"].Next || !k.rows["b"].Next || k.rows["c"].Next {
			t.Errorf("saved are %+v", k.rows)
		}
	})
}

// TestCancelWhilePaused: a caller of Await is told that its run was cancelled when the row is saved,
// which is after the pause (invariants 2 and 8).
func TestCancelWhilePaused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := &shelf{}
		c := run(t, maintain.Options{Keeper: k, Operations: []maintain.Operation{{Name: "a", Run: nothing}}})
		if err := c.Pause(t.Context(), "a copy"); err != nil {
			t.Error(err)
		}
		awaited := make(chan error, 1)
		go func() { awaited <- c.Await(t.Context(), "a") }()
		synctest.Wait()
		if found, err := c.Cancel("a"); !found || err != nil {
			t.Errorf("cancel: %t, %v", found, err)
		}
		synctest.Wait()
		select {
		case err := <-awaited:
			t.Errorf("the caller got %v before the row was saved", err)
		default:
		}
		c.Resume()
		if err := <-awaited; !errors.Is(err, maintain.ErrCancelled) || len(k.log) == 0 {
			t.Errorf("the caller got %v with %d rows saved", err, len(k.log))
		}
	})
}

// TestPauseLeavesNothing: a caller of Pause that gives up is forgotten.
func TestPauseLeavesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		c := run(t, maintain.Options{Operations: []maintain.Operation{{Name: "a",
			Run: func(ctx context.Context, _ *maintain.Progress) error { <-release; return ctx.Err() }}}})
		if err := c.Schedule("a"); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Pause(ctx, ""); !errors.Is(err, context.DeadlineExceeded) || c.Pausing() != 0 {
			t.Errorf("%v; %d callers of Pause are left", err, c.Pausing())
		}
		close(release)
	})
}
