package clients_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cistern/api/clients"
	"cistern/store/storetest"
)

var (
	greedy = netip.MustParsePrefix("192.0.2.1/32")
	modest = netip.MustParsePrefix("192.0.2.2/32")
)

// queued is a queue of two processors, and what runs in it.
type queued struct {
	t     *testing.T
	q     *clients.Queue
	mu    sync.Mutex
	runs  map[netip.Prefix]int
	most  map[netip.Prefix]int // at a time
	order []netip.Prefix       // of the begins
	group sync.WaitGroup
}

func newQueued(t *testing.T) *queued {
	return &queued{t: t, q: clients.NewQueue(2, time.Now), runs: map[netip.Prefix]int{}, most: map[netip.Prefix]int{}}
}

// ask has a client compute for a while, yielding in each step.
func (x *queued) ask(ctx context.Context, c netip.Prefix, steps int, step time.Duration) {
	x.group.Go(func() {
		ctx, leave, err := x.q.Enter(ctx, c)
		if err != nil {
			return
		}
		x.count(c, 1)
		for range steps {
			time.Sleep(step)
			x.count(c, -1) // Yield may let others compute
			err := clients.Yield(ctx)
			x.count(c, 1)
			if err != nil {
				break
			}
		}
		x.count(c, -1)
		leave()
	})
}

// running returns how many computations of a client run, and most how many ran at a time.
func (x *queued) running(c netip.Prefix) (now, most int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.runs[c], x.most[c]
}

// begun returns the clients of the begins, in order.
func (x *queued) begun() []netip.Prefix {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Clone(x.order)
}

func (x *queued) count(c netip.Prefix, n int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.runs[c] += n
	x.most[c] = max(x.most[c], x.runs[c])
	if n > 0 {
		x.order = append(x.order, c)
	}
}

// A client alone takes everything.
func TestQueueAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := newQueued(t)
		for range 20 {
			x.ask(t.Context(), greedy, 1, time.Second)
		}
		synctest.Wait()
		if n, _ := x.running(greedy); n != 8 {
			t.Errorf("%d computations run, want four for each processor", n)
		}
		x.group.Wait()
	})
}

// Beside another client, a greedy one has half of the processors, and the other does not wait for
// its queue.
func TestQueueShares(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := newQueued(t)
		x.ask(t.Context(), modest, 1, time.Millisecond)
		synctest.Wait() // it is present
		for range 20 {
			x.ask(t.Context(), greedy, 1, 10*time.Millisecond)
		}
		synctest.Wait()
		ofGreedy, _ := x.running(greedy)
		if ofModest, _ := x.running(modest); ofGreedy != 1 || ofModest != 1 {
			t.Errorf("%d of the greedy client run, and %d of the modest one", ofGreedy, ofModest)
		}
		time.Sleep(50 * time.Millisecond)
		begun := time.Now()
		_, leave, err := x.q.Enter(t.Context(), modest)
		if waited := time.Since(begun); err != nil || waited > 0 {
			t.Errorf("the modest client waits for %v, %v", waited, err)
		}
		leave()
		time.Sleep(2 * time.Second) // the modest client is gone
		if _, most := x.running(greedy); most != 1 {
			t.Errorf("%d of the greedy client ran at a time", most)
		}
		for range 20 {
			x.ask(t.Context(), greedy, 1, time.Second)
		}
		synctest.Wait()
		if n, _ := x.running(greedy); n != 8 {
			t.Errorf("%d of the greedy client run a while later", n)
		}
		x.group.Wait()
	})
}

// When slots are short, the client that has computed least begins first.
func TestQueueLeastFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		x := newQueued(t)
		var others []netip.Prefix
		for i := range 8 {
			c := netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 32)
			others = append(others, c)
			x.ask(t.Context(), c, 3, time.Duration(i+2)*time.Millisecond)
		}
		synctest.Wait()
		for _, c := range others {
			x.ask(t.Context(), c, 1, 100*time.Millisecond)
		}
		synctest.Wait()
		x.ask(t.Context(), modest, 1, time.Millisecond)
		synctest.Wait()
		before := len(x.begun())
		time.Sleep(2 * time.Millisecond) // the first computation is yielded
		synctest.Wait()
		if first := x.begun()[before]; first != modest {
			t.Errorf("%v begins first", first)
		}
		x.group.Wait()
	})
}

// Whatever clients ask for, stop waiting for or pause in, every request is served or withdrawn, and
// no more run than there are slots.
func TestQueueRandom(t *testing.T) {
	t.Parallel()
	for seed := range storetest.Seeds(50) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			q := clients.NewQueue(1+rng.IntN(3), time.Now)
			var running, ended atomic.Int64
			var group sync.WaitGroup
			const requests = 300
			for range requests {
				c := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(rng.IntN(5))}), 32)
				wait := time.Duration(rng.IntN(50)) * time.Millisecond
				steps, step, paused := rng.IntN(4), time.Duration(rng.IntN(3000))*time.Microsecond, rng.IntN(4) == 0
				time.Sleep(time.Duration(rng.IntN(2000)) * time.Microsecond)
				group.Go(func() {
					defer ended.Add(1)
					ctx, cancel := context.WithTimeout(t.Context(), wait)
					defer cancel()
					ctx, leave, err := q.Enter(ctx, c)
					if err != nil {
						return
					}
					defer leave()
					for range steps {
						if n := running.Add(1); n > 12 {
							t.Errorf("%d run", n)
						}
						time.Sleep(step)
						running.Add(-1)
						if err := clients.Yield(ctx); err != nil {
							return
						}
						if !paused {
							continue
						}
						fails := errors.New("the client is gone")
						if err := clients.Pause(ctx, func() error { time.Sleep(step); return fails }); !errors.Is(err, fails) {
							t.Errorf("Pause: %v", err)
						}
						return
					}
				})
			}
			group.Wait()
			if ended.Load() != requests || clients.Taken(q) != 0 || clients.Present(q) != 0 {
				t.Errorf("seed %d: %d of %d ended, %d slots are held by %d clients", seed, ended.Load(), requests, clients.Taken(q), clients.Present(q))
			}
		})
	}
}
