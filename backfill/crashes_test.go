package backfill_test

import (
	"math/rand/v2"
	"sync"
	"time"

	"cistern/store"
	"cistern/store/storetest"
)

// crashes gathers clones of a file system at durable steps, with none, some or all of the unsynced
// writes.
type crashes struct {
	fs        *storetest.CrashFS
	one, most int // clones one step in so many, by chance, and at most so many

	// mu guards:
	mu     sync.Mutex
	rng    *rand.Rand
	idle   bool
	clones []*storetest.CrashFS
}

func newCrashes(seed uint64, one, most int) *crashes {
	return &crashes{fs: storetest.NewCrashFS(), one: one, most: most, rng: rand.New(rand.NewPCG(seed, 0))}
}

// step is for store.Options.Step.
func (c *crashes) step(string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.idle && len(c.clones) < c.most && c.rng.IntN(c.one) == 0 {
		c.clones = append(c.clones, c.fs.Clone(c.rng, []int{0, 50, 100}[c.rng.IntN(3)]))
	}
}

func (c *crashes) setIdle(idle bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = idle
}

// each opens every clone, which must check clean before and after the run that goOn starts. It
// fails if there are fewer than least clones.
func (c *crashes) each(w *world, least int, goOn func(w *world)) {
	w.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.clones) < least {
		w.t.Errorf("only %d crashes", len(c.clones))
	}
	for _, clone := range c.clones {
		again := &world{t: w.t, net: w.net}
		again.clock.advance(time.Duration(w.clock.ahead.Load()))
		s, err := store.Open(store.Options{FS: clone, Dir: "db", Now: again.clock.now, GroupAge: 5 * time.Millisecond})
		if err != nil {
			w.t.Fatal(err)
		}
		again.store = s
		storetest.Check(w.t, s)
		goOn(again)
		again.stop()
		storetest.Check(w.t, s)
		if err := s.Close(); err != nil {
			w.t.Error(err)
		}
	}
}
