package condition_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cistern/condition"
)

// TestQuota: the budget of a day is spent by what is received, is kept across a restart, and is new
// at midnight by the clock on the wall.
func TestQuota(t *testing.T) {
	t.Parallel()
	at := func(day, hour int) time.Time { return time.Date(2026, 12, day, hour, 59, 0, 0, time.Local) }
	m := condition.NewMeter(0, condition.Traffic{})
	for i, s := range []struct {
		now     time.Time
		receive int
		restart bool
		level   condition.Level
		text    string
	}{
		{at(1, 0), 0, false, condition.Good, "0 B received today, 1.0 KiB allowed"},
		{at(1, 1), 1023, false, condition.Good, "1023 B received today, 1.0 KiB allowed"},
		{at(1, 2), 1, false, condition.Bad, "1.0 KiB received today, 1.0 KiB allowed"},
		{at(1, 3), 0, true, condition.Bad, "1.0 KiB received today, 1.0 KiB allowed"},
		{at(1, 23), 5000, false, condition.Bad, "5.9 KiB received today, 1.0 KiB allowed"},
		{at(2, 0), 10, false, condition.Good, "10 B received today, 1.0 KiB allowed"},
		{at(2, 23), 2000, true, condition.Bad, "2.0 KiB received today, 1.0 KiB allowed"},
		{at(5, 0), 0, true, condition.Good, "0 B received today, 1.0 KiB allowed"},
	} {
		if err := m.Receive(t.Context(), s.receive); err != nil {
			t.Fatal(err)
		}
		r, err := condition.Quota(m, 1024).Read(s.now)
		if err != nil || r.Level != s.level || r.Text != s.text {
			t.Errorf("step %d: %+v, %v; want %d, %q", i, r, err, s.level, s.text)
		}
		if s.restart {
			m = condition.NewMeter(0, m.Today(s.now))
		}
	}
}

// TestPerSecond: whatever many readers receive, it is never more than the limit by more than a
// second's worth, and a reader that gives up does not wait.
func TestPerSecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const limit = 1000
		m := condition.NewMeter(limit, condition.Traffic{})
		begun := time.Now()
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				for n := range 40 {
					if err := m.Receive(t.Context(), n*10); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		// 5 × 7,800 bytes, of which the first second's worth is free.
		if took := time.Since(begun).Round(time.Second); took != 38*time.Second {
			t.Errorf("took %s", took)
		}
		if got := m.Today(begun).Bytes; got != 5*7800 {
			t.Errorf("%d bytes", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := m.Receive(ctx, 10); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := condition.NewMeter(0, condition.Traffic{}).Receive(ctx, 1<<40); err != nil {
			t.Error(err)
		}
	})
}
