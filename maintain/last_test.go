package maintain_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cistern/maintain"
)

// vault is where an operation keeps its results: it has the times at which they began. Asking fails
// so many times.
type vault struct {
	mu    sync.Mutex
	start time.Time
	began []time.Time
	takes time.Duration
	fails int
}

func (v *vault) last(context.Context) (time.Time, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.fails > 0 {
		v.fails--
		return time.Time{}, errors.New("no answer")
	}
	if len(v.began) == 0 {
		return time.Time{}, nil
	}
	return v.began[len(v.began)-1], nil
}

func (v *vault) run(ctx context.Context, _ *maintain.Progress) error {
	begin := time.Now()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(v.takes):
	}
	v.add(begin)
	return nil
}

func (v *vault) add(begin time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.began = append(v.began, begin)
}

// read returns when the results began, since the start.
func (v *vault) read() (began []time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, t := range v.began {
		began = append(began, t.Sub(v.start))
	}
	return began
}

// TestLast: an operation that keeps its results elsewhere is due one period after the beginning of
// the newest, over restarts and whatever its row says, and whatever makes the results.
func TestLast(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := &vault{start: time.Now(), takes: 10 * time.Minute}
		k := &shelf{}
		for _, step := range []struct {
			name   string
			before func()                      // the start of the daemon
			do     func(*maintain.Coordinator) // once it runs
			long   time.Duration               // that it runs
			want   []time.Duration             // that are made meanwhile
		}{
			{"the first", nil, nil, 90 * time.Minute, []time.Duration{0, time.Hour}},
			{"a restart adds none", nil, nil, 29 * time.Minute, nil},
			{"a restart skips none", nil, nil, 20 * time.Minute, []time.Duration{2 * time.Hour}},
			{"a request makes one", nil, func(c *maintain.Coordinator) {
				if err := c.Schedule("backup"); err != nil {
					t.Error(err)
				}
			}, 30 * time.Minute, []time.Duration{139 * time.Minute}},
			{"another program made one", nil, func(*maintain.Coordinator) { v.add(time.Now()) }, 50 * time.Minute,
				[]time.Duration{169 * time.Minute}},
			{"no answer at first", func() { v.fails = 2 }, nil, 30 * time.Minute, []time.Duration{229 * time.Minute}},
			{"they are lost", func() { v.began = nil }, nil, 15 * time.Minute, []time.Duration{249 * time.Minute}},
		} {
			if step.before != nil {
				step.before()
			}
			before := len(v.began)
			c, err := maintain.New(maintain.Options{Keeper: k, Operations: []maintain.Operation{{Name: "backup", Every: time.Hour,
				Last: v.last, Run: v.run}}})
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- c.Run(ctx) }()
			synctest.Wait()
			if step.do != nil {
				step.do(c)
			}
			rest(step.long)
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if got := v.read()[before:]; !slices.Equal(got, step.want) {
				t.Errorf("%s: results at %v, want %v", step.name, got, step.want)
			}
		}
	})
}
