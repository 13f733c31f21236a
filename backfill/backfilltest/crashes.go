package backfilltest

import (
	"math/rand/v2"
	"sync"
	"time"

	"cistern/store"
	"cistern/store/storetest"
)

// Crashes collects clones of a file system at durable steps, with none, some or all of the unsynced
// writes.
type Crashes struct {
	FS        *storetest.CrashFS
	one, most int // clones each step with probability 1/one, and at most most steps

	// mu guards:
	mu     sync.Mutex
	rng    *rand.Rand
	idle   bool
	clones []*storetest.CrashFS
}

// NewCrashes makes a file system that is cloned at a step with probability 1/one, at most most
// times.
func NewCrashes(seed uint64, one, most int) *Crashes {
	return &Crashes{FS: storetest.NewCrashFS(), one: one, most: most,
		rng: rand.New(rand.NewPCG(seed, 0))}
}

// Step is for store.Options.Step.
func (c *Crashes) Step(string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.idle && len(c.clones) < c.most && c.rng.IntN(c.one) == 0 {
		c.clones = append(c.clones, c.FS.Clone(c.rng, []int{0, 50, 100}[c.rng.IntN(3)]))
	}
}

// SetIdle stops or resumes the cloning.
func (c *Crashes) SetIdle(idle bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = idle
}

// Each opens every clone, runs goOn on it, and requires that the store checks clean before and
// after. The test fails if there are fewer than least clones.
func (c *Crashes) Each(w *World, least int, goOn func(w *World)) {
	w.T.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.clones) < least {
		w.T.Errorf("only %d crashes", len(c.clones))
	}
	for _, clone := range c.clones {
		again := &World{T: w.T, Net: w.Net, Stop: func() {}}
		again.Clock.Advance(time.Duration(w.Clock.ahead.Load()))
		s, err := store.Open(store.Options{FS: clone, Dir: "db", Now: again.Clock.Now,
			GroupAge: groupAge})
		if err != nil {
			w.T.Fatal(err)
		}
		again.Store = s
		storetest.Check(w.T, s)
		goOn(again)
		again.Stop()
		storetest.Check(w.T, s)
		if err := s.Close(); err != nil {
			w.T.Error(err)
		}
	}
}
