package loop

import (
	"math/rand/v2"
	"sync"
	"time"
)

// Jitter varies delays.
type Jitter struct {
	// mu guards:
	mu   sync.Mutex
	rand *rand.Rand
}

// NewJitter returns a Jitter. Equal seeds give equal sequences of delays.
func NewJitter(seed uint64) *Jitter { return &Jitter{rand: rand.New(rand.NewPCG(seed, 0))} }

// Vary changes d by up to a tenth in either direction, so that tasks that failed together are not
// retried together.
func (j *Jitter) Vary(d time.Duration) time.Duration {
	j.mu.Lock()
	defer j.mu.Unlock()
	return time.Duration(float64(d) * (0.9 + 0.2*j.rand.Float64()))
}
