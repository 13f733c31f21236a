package gate_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cistern/gate"
)

func TestCauses(t *testing.T) {
	t.Parallel()
	var g gate.Gate
	changes := 0
	g.OnChange(func() { changes++ })
	operator, disk := gate.Cause{Name: "operator"}, gate.Cause{Name: "disk", Reason: "3 GiB free"}
	less := gate.Cause{Name: "disk", Reason: "2 GiB free"}
	for i, step := range []struct {
		do     func() bool
		edge   bool
		causes []gate.Cause
	}{
		{func() bool { return g.Open("disk") }, false, nil},
		{func() bool { return g.Shut(operator) }, true, []gate.Cause{operator}},
		{func() bool { return g.Shut(operator) }, false, []gate.Cause{operator}},
		{func() bool { return g.Shut(disk) }, false, []gate.Cause{operator, disk}},
		{func() bool { return g.Shut(less) }, false, []gate.Cause{operator, less}},
		{func() bool { return g.Open("operator") }, false, []gate.Cause{less}},
		{func() bool { return g.Open("operator") }, false, []gate.Cause{less}},
		{func() bool { return g.Open("disk") }, true, nil},
	} {
		if edge := step.do(); edge != step.edge {
			t.Errorf("step %d says %t", i, edge)
		}
		if got := g.Causes(); !slices.Equal(got, step.causes) || g.IsShut() != (len(got) > 0) {
			t.Errorf("step %d: causes %v, shut %t; want %v", i, got, g.IsShut(), step.causes)
		}
		if g.ShutBy("disk") != slices.ContainsFunc(step.causes, func(c gate.Cause) bool { return c.Name == "disk" }) {
			t.Errorf("step %d: shut by the disk: %t", i, g.ShutBy("disk"))
		}
	}
	if changes != 8 {
		t.Errorf("%d changes were told of", changes)
	}
}

func TestPass(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g gate.Gate
		if !g.Pass(t.Context()) {
			t.Error("an open gate holds up")
		}
		g.Shut(gate.Cause{Name: "a"})
		g.Shut(gate.Cause{Name: "b"})
		var passed atomic.Int32
		for range 3 {
			go func() {
				if g.Pass(t.Context()) {
					passed.Add(1)
				}
			}()
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan bool, 1)
		go func() { ended <- g.Pass(ctx) }()
		g.Open("b")
		synctest.Wait()
		if n := passed.Load(); n != 0 {
			t.Errorf("%d passed a gate with a cause", n)
		}
		cancel()
		if <-ended {
			t.Error("a context that ended passes")
		}
		g.Open("a")
		synctest.Wait()
		if n := passed.Load(); n != 3 {
			t.Errorf("%d of 3 passed", n)
		}
	})
}

// TestRun: only a cause that halts ends what runs, and it runs again after the last of them.
func TestRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g gate.Gate
		var running, runs atomic.Int32
		failure := errors.New("it failed")
		fail := make(chan struct{})
		result := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		part := func(ctx context.Context) error {
			runs.Add(1)
			running.Store(1)
			defer running.Store(0)
			select {
			case <-ctx.Done():
				return nil
			case <-fail:
				return failure
			}
		}
		go func() { result <- g.Run(ctx, part) }()
		halt := func(name string) func() {
			return func() { g.Shut(gate.Cause{Name: name, Halts: true}) }
		}
		open := func(name string) func() { return func() { g.Open(name) } }
		for i, step := range []struct {
			do            func()
			running, runs int32
		}{
			{func() {}, 1, 1},
			{func() { g.Shut(gate.Cause{Name: "operator"}) }, 1, 1},
			{halt("disk"), 0, 1}, {halt("disk"), 0, 1}, {halt("memory"), 0, 1},
			{open("disk"), 0, 1}, {open("memory"), 1, 2}, {open("operator"), 1, 2},
		} {
			step.do()
			time.Sleep(time.Millisecond)
			synctest.Wait()
			if running.Load() != step.running || runs.Load() != step.runs {
				t.Errorf("step %d: %d running, %d runs; want %d, %d", i, running.Load(), runs.Load(), step.running, step.runs)
			}
		}
		close(fail)
		if err := <-result; !errors.Is(err, failure) {
			t.Errorf("ended with %v", err)
		}
		g.Shut(gate.Cause{Name: "disk", Halts: true})
		go func() { result <- g.Run(ctx, part) }()
		synctest.Wait()
		cancel()
		if err := <-result; err != nil {
			t.Errorf("ended with %v while halted", err)
		}
	})
}

func TestBegin(t *testing.T) {
	t.Parallel()
	var g gate.Gate
	first, second := g.Begin(), g.Begin()
	if first == nil || second == nil || g.Working() != 2 {
		t.Fatalf("an open gate keeps work out, or counts %d", g.Working())
	}
	g.Shut(gate.Cause{Name: "phase"})
	if g.Begin() != nil {
		t.Error("work began at a shut gate")
	}
	first()
	if g.Working() != 1 {
		t.Errorf("%d pieces of work are counted, one is left", g.Working())
	}
	second()
	g.Open("phase")
	if end := g.Begin(); end == nil || g.Working() != 1 {
		t.Errorf("an open gate keeps work out, or counts %d", g.Working())
	}
}

// TestWorkingInRun: what runs counts until it has returned, which may be long after it was halted.
func TestWorkingInRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var g gate.Gate
		ctx, cancel := context.WithCancel(t.Context())
		result, finish := make(chan error, 1), make(chan struct{})
		go func() {
			result <- g.Run(ctx, func(ctx context.Context) error {
				<-ctx.Done()
				<-finish
				return nil
			})
		}()
		want := func(when string, n int) {
			t.Helper()
			if synctest.Wait(); g.Working() != n {
				t.Errorf("%s: %d are working, want %d", when, g.Working(), n)
			}
		}
		want("running", 1)
		g.Shut(gate.Cause{Name: "phase", Halts: true})
		want("ending", 1)
		finish <- struct{}{}
		want("halted", 0)
		g.Open("phase")
		want("running again", 1)
		cancel()
		finish <- struct{}{}
		if err := <-result; err != nil {
			t.Error(err)
		}
		want("ended", 0)
	})
}
