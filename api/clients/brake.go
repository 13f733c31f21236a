package clients

import (
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"
)

// Brake slows down clients that guess a secret. It counts the wrong guesses of each client, and
// those of all together. A client that has made too many has to wait, and delays no other.
type Brake struct {
	now func() time.Time

	mu       sync.Mutex
	all      *rate.Limiter                               // mu guards
	guessers *simplelru.LRU[netip.Prefix, *rate.Limiter] // mu guards; those that guessed wrong last
}

// The wrong guesses that are allowed. One client may make brakeBurst, and then one in brakeEvery.
// All clients together may make brakeAllBurst, and then one in brakeAllEvery: it takes ten clients
// that guess all the time to use that up. brakeClients bounds the clients that are remembered,
// 10,000 × about 200 bytes; the guesses of a client that was forgotten still count among those of
// all.
const (
	brakeBurst    = 10
	brakeEvery    = 10 * time.Second
	brakeAllBurst = 200
	brakeAllEvery = time.Second
	brakeClients  = 10_000
)

// NewBrake returns a Brake that has seen no guess. now is the clock.
func NewBrake(now func() time.Time) (*Brake, error) {
	guessers, err := simplelru.NewLRU[netip.Prefix, *rate.Limiter](brakeClients, nil)
	return &Brake{now: now, all: rate.NewLimiter(rate.Every(brakeAllEvery), brakeAllBurst),
		guessers: guessers}, err
}

// Try has c make a guess, which right decides, unless c has to wait first. A wrong guess counts.
// wait is how long c has to wait until it may guess, 0 if right was called.
func (b *Brake) Try(c netip.Prefix, right func() bool) (ok bool, wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if wait = b.wait(c); wait > 0 {
		return false, wait
	}
	if right() {
		return true, 0
	}
	b.count(c)
	return false, 0
}

// Wrong counts a wrong guess of c that was made without Try. wait is how long c should have waited
// before, and then the guess is not counted; 0 if it may guess.
func (b *Brake) Wrong(c netip.Prefix) (wait time.Duration) {
	_, wait = b.Try(c, func() bool { return false })
	return wait
}

// wait returns how long c has to wait until it may guess. mu is held.
func (b *Brake) wait(c netip.Prefix) time.Duration {
	now := b.now()
	longest := until(b.all, now)
	if own, found := b.guessers.Get(c); found {
		longest = max(longest, until(own, now))
	}
	return longest
}

// count counts a wrong guess of c, which may guess. mu is held.
func (b *Brake) count(c netip.Prefix) {
	own, found := b.guessers.Get(c)
	if !found {
		own = rate.NewLimiter(rate.Every(brakeEvery), brakeBurst)
		b.guessers.Add(c, own)
	}
	own.AllowN(b.now(), 1)
	b.all.AllowN(b.now(), 1)
}

// until returns how long it takes until a limiter allows one more.
func until(l *rate.Limiter, now time.Time) time.Duration {
	lacking := 1 - l.TokensAt(now)
	if lacking <= 0 {
		return 0
	}
	wait := time.Duration(lacking / float64(l.Limit()) * float64(time.Second))
	return wait.Round(time.Microsecond)
}
