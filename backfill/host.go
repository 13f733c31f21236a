package backfill

import (
	"time"

	"cistern/ingest/identity"
	"cistern/store"
)

// item is a pending repository on its way to a task.
type item struct {
	did    string
	key    store.PendingKey
	ident  *identity.Identity // looked up for this place in the queue; nil: not yet
	looked time.Time          // when
	marks  identityMarks      // of the row, before
}

// fault is what a failed attempt says about its host.
type fault uint8

const (
	// noFault: the host answered, or we do not know.
	noFault fault = iota
	// softFault: it broke off or answered 500, which may be about one repository.
	softFault
	// hardFault: it cannot be reached, or says itself that it is out of order.
	hardFault
)

// host is what we know of a PDS. Runner.mu guards it, except where the dispatcher owns it.
type host struct {
	id      uint32
	running int // permits taken
	claimed int // DIDs in flight, those that only wait for their import to be flipped too

	until  time.Time // parked until then
	heap   int       // place in Runner.parked, -1 for none
	faults int       // parkings in a row without a success between
	soft   int       // soft faults in a row
	trying bool      // parked lately: one request at a time until it succeeds
	proven bool      // has answered in order since we remember it
	epoch  uint64    // rises with each parking: failures of requests begun before it are old news

	room   []item // resolved, waiting for a permit; in flight already
	more   bool   // its queue may hold rows that are not in ready
	queued bool   // is in Runner.runnable or Runner.shy

	ready []item // owned by the dispatcher: read ahead from its queue
}

// limit is how many requests it may get at a time.
func (h *host) limit(perHost int) int {
	if h.trying {
		return 1
	}
	return perHost
}

func (h *host) isParked(now time.Time) bool { return now.Before(h.until) }

// open says whether it could be given another request now.
func (h *host) open(now time.Time, perHost int) bool {
	return !h.isParked(now) && h.running < h.limit(perHost)
}

func (h *host) hasWork() bool { return len(h.room) > 0 || len(h.ready) > 0 || h.more }

// idle says whether forgetting it loses nothing but its history.
func (h *host) idle(now time.Time) bool {
	return h.running == 0 && h.claimed == 0 && !h.queued && !h.hasWork() && !h.isParked(now) && h.heap < 0
}

// succeeded clears what its failures built up.
func (h *host) succeeded() { h.faults, h.soft, h.trying, h.proven = 0, 0, false, true }

// failed notes a fault of a request begun in an epoch, and says how long to leave it alone.
func (h *host) failed(f fault, epoch uint64) time.Duration {
	if f == noFault || epoch != h.epoch {
		return 0
	}
	if f == softFault {
		if h.soft++; h.soft < softFaultsMax && !h.trying {
			return 0
		}
	}
	d := faultParkBase
	for i := 0; i < h.faults && d < faultParkMax; i++ {
		d *= 2
	}
	h.faults++
	return min(d, faultParkMax)
}

// hostHeap orders parked hosts by when they return.
type hostHeap []*host

func (q hostHeap) Len() int           { return len(q) }
func (q hostHeap) Less(i, j int) bool { return q[i].until.Before(q[j].until) }
func (q hostHeap) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].heap, q[j].heap = i, j
}
func (q *hostHeap) Push(x any) {
	h := x.(*host)
	h.heap = len(*q)
	*q = append(*q, h)
}
func (q *hostHeap) Pop() any {
	old := *q
	h := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	h.heap = -1
	return h
}
