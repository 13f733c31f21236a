package backfilltest

import (
	"sync/atomic"
	"time"
)

// Clock runs at the speed of the real clock, and can be set forward.
type Clock struct {
	ahead atomic.Int64
}

// Now returns the time.
func (c *Clock) Now() time.Time {
	return time.Now().Add(time.Duration(c.ahead.Load()))
}

// Advance sets the clock forward.
func (c *Clock) Advance(d time.Duration) { c.ahead.Add(int64(d)) }
