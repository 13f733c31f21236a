package names

import (
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"
)

// rates limits how often each key does something. It remembers the ratesMax keys that were used
// last.
type rates[K comparable] struct {
	each  rate.Limit
	burst int

	mu    sync.Mutex
	lasts *simplelru.LRU[K, *rate.Limiter] // mu guards
}

func newRates[K comparable](each rate.Limit, burst int) (*rates[K], error) {
	lasts, err := simplelru.NewLRU[K, *rate.Limiter](ratesMax, nil)
	return &rates[K]{each: each, burst: burst, lasts: lasts}, err
}

// allow reports whether a key may do it once more now.
func (r *rates[K]) allow(key K, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	l, ok := r.lasts.Get(key)
	if !ok {
		l = rate.NewLimiter(r.each, r.burst)
		r.lasts.Add(key, l)
	}
	return l.AllowN(now, 1)
}
