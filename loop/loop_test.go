package loop_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"cistern/loop"
)

// TestSleep: a wait ends by the first of a signal, also one from before, the time, and the context.
func TestSleep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c := make(chan struct{}, 1)
		took := func() time.Duration {
			begin := time.Now()
			loop.Sleep(ctx, time.Minute, c)
			return time.Since(begin)
		}
		if d := took(); d != time.Minute {
			t.Errorf("without a signal it took %s", d)
		}
		loop.Wake(c)
		loop.Wake(c) // does not block, and is the same signal
		if d := took(); d != 0 {
			t.Errorf("woken before, it took %s", d)
		}
		time.AfterFunc(time.Second, func() { loop.Wake(c) })
		if d := took(); d != time.Second {
			t.Errorf("woken after a second, it took %s", d)
		}
		time.AfterFunc(2*time.Second, cancel)
		if d := took(); d != 2*time.Second {
			t.Errorf("ended after two seconds, it took %s", d)
		}
	})
}

// TestQuiet: once the context has ended, no error is a failure.
func TestQuiet(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	failure := errors.New("failure")
	if err := loop.Quiet(ctx, failure); err != failure {
		t.Errorf("before the end: %v", err)
	}
	cancel()
	if err := loop.Quiet(ctx, failure); err != nil {
		t.Errorf("after the end: %v", err)
	}
}

// TestJitter: delays differ by at most a tenth, and are the same for the same seed.
func TestJitter(t *testing.T) {
	t.Parallel()
	a, b, seen := loop.NewJitter(7), loop.NewJitter(7), map[time.Duration]bool{}
	for range 1000 {
		d := a.Vary(time.Hour)
		if d < 54*time.Minute || d > 66*time.Minute || d != b.Vary(time.Hour) {
			t.Fatalf("an hour is %s", d)
		}
		seen[d] = true
	}
	if len(seen) < 900 {
		t.Errorf("%d delays of 1000 differ", len(seen))
	}
}
