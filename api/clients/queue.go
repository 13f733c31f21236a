package clients

import (
	"container/heap"
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// recent is how long a client that asked before counts as present. Beside a present client, no
// other client may take all processors.
const recent = time.Second

// stepTime is how long a computation may go on before Yield lets others compute.
const stepTime = time.Millisecond

// Queue shares processors among clients. A few computations run at a time. The next one is that of
// the waiting client that has computed the least, by start-time fair queueing (Goyal, Vin and
// Cheng, 1996). So a client with many requests delays the single request of another by what is
// running, not by what is waiting.
type Queue struct {
	now   func() time.Time
	slots int // computations at a time
	most  int // of one client while another one is present

	// mu guards:
	mu      sync.Mutex
	taken   int
	clock   time.Duration // used of the client that began last
	clients map[netip.Prefix]*usage
	waiting usages      // clients that wait and may begin, as a heap
	last    [2]presence // the two clients that asked last, the last one first
}

// usage is what a client holds and waits for.
type usage struct {
	client netip.Prefix
	used   time.Duration // computing time, at least clock when it began to hold or wait
	held   int
	waits  []chan struct{} // closed when a slot is given, in the order of the requests
	index  int             // in waiting; -1: not there
}

type presence struct {
	client netip.Prefix
	asked  time.Time
}

// NewQueue makes a queue for a number of processors.
func NewQueue(processors int, now func() time.Time) *Queue {
	// More computations than processors run at a time, since some wait for the disk.
	return &Queue{now: now, slots: 4 * processors, most: max(1, processors/2),
		clients: map[netip.Prefix]*usage{}}
}

// Slot is the right of one request to compute. It is used by one goroutine.
type Slot struct {
	q      *Queue
	client netip.Prefix
	since  time.Time // when the slot was taken; zero: it is not held
}

type slotKey struct{}

// Enter waits until a request of a client may compute. The context that it returns carries the slot
// for Yield and Pause. The caller calls leave when it has computed.
func (q *Queue) Enter(
	ctx context.Context, c netip.Prefix,
) (slotted context.Context, leave func(), err error) {
	s := &Slot{q: q, client: c}
	if err := s.take(ctx); err != nil {
		return nil, nil, err
	}
	return context.WithValue(ctx, slotKey{}, s), s.give, nil
}

// Yield lets others compute if the request has computed for a while. A context without a slot does
// not wait. It returns the error of a context that has ended.
func Yield(ctx context.Context) error {
	if s, ok := ctx.Value(slotKey{}).(*Slot); ok && s.q.now().Sub(s.since) >= stepTime {
		s.give()
		return s.take(ctx)
	}
	return ctx.Err()
}

// Pause calls fn, which waits for something, without the slot.
func Pause(ctx context.Context, fn func() error) error {
	s, ok := ctx.Value(slotKey{}).(*Slot)
	if !ok {
		return fn()
	}
	s.give()
	if err := fn(); err != nil {
		return err
	}
	return s.take(ctx)
}

// take waits for the slot.
func (s *Slot) take(ctx context.Context) error {
	q := s.q
	q.mu.Lock()
	now := q.now()
	u := q.enter(s.client, now)
	if len(u.waits) == 0 && u.held < q.share(s.client, now) && q.taken < q.slots {
		q.begin(u)
		q.mu.Unlock()
		s.since = now
		return nil
	}
	given := make(chan struct{})
	u.waits = append(u.waits, given)
	q.place(u, now)
	q.mu.Unlock()
	select {
	case <-given:
	case <-ctx.Done():
		if q.withdraw(u, given) {
			return ctx.Err()
		}
	}
	s.since = q.now()
	return nil
}

// give ends the holding of the slot, if it is held.
func (s *Slot) give() {
	if s.since.IsZero() {
		return
	}
	q := s.q
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now()
	u := q.clients[s.client]
	u.used += now.Sub(s.since)
	s.since = time.Time{}
	u.held--
	q.taken--
	q.place(u, now)
	for q.taken < q.slots && len(q.waiting) > 0 {
		next := q.waiting[0]
		if next.held < q.share(next.client, now) {
			given := next.waits[0]
			next.waits = next.waits[1:]
			q.begin(next)
			close(given)
		}
		q.place(next, now)
	}
	q.drop(u)
}

// The caller of the functions below holds q.mu.

// enter returns the usage of a client that asks.
func (q *Queue) enter(c netip.Prefix, now time.Time) *usage {
	if q.last[0].client != c {
		q.last[1] = q.last[0]
	}
	q.last[0] = presence{c, now}
	u := q.clients[c]
	if u == nil {
		u = &usage{client: c, used: q.clock, index: -1}
		q.clients[c] = u
	}
	return u
}

// share returns how many slots a client may hold.
func (q *Queue) share(c netip.Prefix, now time.Time) int {
	other := q.last[0]
	if other.client == c {
		other = q.last[1]
	}
	if other.asked.IsZero() || now.Sub(other.asked) > recent {
		return q.slots
	}
	return q.most
}

// begin gives a slot to a client.
func (q *Queue) begin(u *usage) {
	u.held++
	q.taken++
	q.clock = max(q.clock, u.used)
}

// place puts a client into the heap if it waits and may begin, and takes it out otherwise. A client
// that may not begin holds a slot, and is placed again when it gives that.
func (q *Queue) place(u *usage, now time.Time) {
	switch may := len(u.waits) > 0 && u.held < q.share(u.client, now); {
	case may && u.index < 0:
		heap.Push(&q.waiting, u)
	case may:
		heap.Fix(&q.waiting, u.index)
	case u.index >= 0:
		heap.Remove(&q.waiting, u.index)
	}
}

// drop forgets a client that neither holds nor waits.
func (q *Queue) drop(u *usage) {
	if u.held == 0 && len(u.waits) == 0 {
		delete(q.clients, u.client)
	}
}

// withdraw ends a wait. It returns false if the slot has been given.
func (q *Queue) withdraw(u *usage, given chan struct{}) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(u.waits, given)
	if i < 0 {
		return false
	}
	u.waits = slices.Delete(u.waits, i, i+1)
	q.place(u, q.now())
	q.drop(u)
	return true
}

// usages is a heap of clients, that which has used the least first.
type usages []*usage

func (h usages) Len() int           { return len(h) }
func (h usages) Less(i, j int) bool { return h[i].used < h[j].used }

func (h usages) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements heap.Interface.
func (h *usages) Push(x any) {
	u := x.(*usage)
	u.index = len(*h)
	*h = append(*h, u)
}

// Pop implements heap.Interface.
func (h *usages) Pop() any {
	last := len(*h) - 1
	u := (*h)[last]
	(*h)[last], u.index = nil, -1
	*h = (*h)[:last]
	return u
}
