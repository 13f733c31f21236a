package ingest

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// buckets has a token bucket for each of a bounded number of keys. Safe for concurrent use.
type buckets struct {
	per        rate.Limit
	burst, max int

	// mu guards:
	mu     sync.Mutex
	byKey  map[string]*rate.Limiter
	others *rate.Limiter // shared by the keys for which there was no room
}

func newBuckets(per rate.Limit, burst, max int) *buckets {
	return &buckets{per: per, burst: burst, max: max, byKey: map[string]*rate.Limiter{},
		others: rate.NewLimiter(per, burst)}
}

// wait takes a token and returns how long to wait for it: delayMax at most, since a longer queue
// takes no further tokens.
func (b *buckets) wait(key string, delayMax time.Duration, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	reservation := b.bucket(key, now).ReserveN(now, 1)
	d := reservation.DelayFrom(now)
	if d > delayMax {
		reservation.CancelAt(now)
		d = delayMax
	}
	return d
}

// bucket returns the bucket of a key. Full buckets are dropped to make room: a full bucket equals a
// new one.
func (b *buckets) bucket(key string, now time.Time) *rate.Limiter {
	if l := b.byKey[key]; l != nil {
		return l
	}
	if len(b.byKey) >= b.max {
		for k, l := range b.byKey {
			if l.TokensAt(now) >= float64(b.burst) {
				delete(b.byKey, k)
			}
		}
	}
	if len(b.byKey) >= b.max {
		return b.others
	}
	l := rate.NewLimiter(b.per, b.burst)
	b.byKey[key] = l
	return l
}
