package condition

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/time/rate"
)

// Traffic is what was received from hosts in one day.
type Traffic struct {
	Day   int // as in 20260501
	Bytes int64
}

// Meter counts what backfill and crawling receive from hosts, and slows it down. Its methods may be
// called from any goroutine.
type Meter struct {
	limiter *rate.Limiter // nil without a limit
	fresh   atomic.Int64  // received, and not in today yet

	mu    sync.Mutex
	today Traffic // mu guards
}

// NewMeter returns a Meter that lets perSecond bytes pass in each second, any number for 0. today
// is what was counted before, by an earlier Meter.
func NewMeter(perSecond int64, today Traffic) *Meter {
	m := &Meter{today: today}
	if perSecond > 0 {
		m.limiter = rate.NewLimiter(rate.Limit(perSecond), int(min(perSecond, burstMax)))
	}
	return m
}

// Receive counts n bytes that were read, and waits until the limit allows to read on. The error is
// that ctx ended.
func (m *Meter) Receive(ctx context.Context, n int) error {
	m.fresh.Add(int64(n))
	if m.limiter == nil {
		return nil
	}
	for burst := m.limiter.Burst(); n > 0; n -= burst {
		if err := m.limiter.WaitN(ctx, min(n, burst)); err != nil {
			return fmt.Errorf("wait for bandwidth: %w", err)
		}
	}
	return nil
}

// Today returns what was received in the day of now, by the location of now. The first call of a
// day begins to count anew.
func (m *Meter) Today(now time.Time) Traffic {
	m.mu.Lock()
	defer m.mu.Unlock()
	y, month, d := now.Date()
	if day := 10_000*y + 100*int(month) + d; day != m.today.Day {
		m.today = Traffic{Day: day}
	}
	m.today.Bytes += m.fresh.Swap(0)
	return m.today
}

// Quota waits once limit bytes were received in a day, until the next day begins.
func Quota(m *Meter, limit int64) Condition {
	return Condition{Name: "bandwidth", Read: func(now time.Time) (Reading, error) {
		got := m.Today(now).Bytes
		return Reading{Level: atMost(got, limit-1, limit-1), Text: fmt.Sprintf(
			"%s received today, %s allowed", humanize.IBytes(uint64(max(0, got))),
			humanize.IBytes(uint64(limit)))}, nil
	}}
}
