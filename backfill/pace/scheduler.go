package pace

import (
	"container/heap"
	"slices"
	"time"
)

// Host is one host of a Scheduler.
type Host struct {
	Limiter
	ID uint32

	wants  bool          // has work, as far as the scheduler was told
	queued bool          // is in a ring
	place  int           // in the heap of those that wait for a time, from 1; 0: is not there
	at     time.Time     // which
	hold   time.Duration // for how long a permit of it is held, usually
}

// Idle says whether the scheduler has nothing to do with the host.
func (h *Host) Idle(now time.Time) bool {
	return !h.wants && !h.queued && h.place == 0 && h.running == 0 && !h.Parked(now)
}

const (
	// strangersShare is the percentage of the permits that hosts may take which have not yet
	// answered in order, or are tardy.
	strangersShare = 75
	// tardyTimes as long as half of the permits are held is tardy, from tardyMin to tardyMax: large repositories of many are not, and
	// a host that hangs is, whatever the others do.
	tardyTimes         = 8
	tardyMin, tardyMax = time.Second, 8 * time.Second
	// A host that holds a sixteenth (shareOf) of the permits comes behind those that hold less; a slow one then leaves
	// a quarter (keepOf) free.
	shareOf = 16
	keepOf  = 4
	// slowTimes as long as usual is slow.
	slowTimes = 2
)

// The rings of a Scheduler. Those behind the first share a part of the permits.
const (
	calm  = iota // proven, below their share
	shy          // not proven
	tardy        // proven, below their share, and hold permits for very long
)

// Scheduler shares permits among hosts that have work.
type Scheduler struct {
	permits, free int
	strangers     int // permits held for hosts that were strange then

	rings [3]ring   // of hosts that may be asked now
	turn  int       // whose turn was last of them
	rich  []*Host   // at their share or above: at most permits ÷ share of them
	timed timedHeap // have work, and wait for a time

	hold, usual time.Duration // for how long a permit is held: the mean, and what half of them are held for
}

// NewScheduler has so many permits.
func NewScheduler(permits int) *Scheduler { return &Scheduler{permits: permits, free: permits} }

// Free is how many permits nobody holds.
func (s *Scheduler) Free() int { return s.free }

// Timed is how many hosts with work wait for a time.
func (s *Scheduler) Timed() int { return len(s.timed) }

func (s *Scheduler) strangersMax() int { return max(1, s.permits*strangersShare/100) }

func (s *Scheduler) share() int { return max(1, s.permits/shareOf) }

// Crowded reports whether no permit is free while hosts that may be asked have work.
func (s *Scheduler) Crowded() bool {
	return s.free == 0 && s.rings[calm].len()+s.rings[shy].len()+s.rings[tardy].len()+len(s.rich) > 0
}

// Ready says whether Pick might find somebody.
func (s *Scheduler) Ready() bool {
	if s.free == 0 {
		return false
	}
	for _, h := range s.rich {
		if !s.slow(h) || s.free > s.permits/keepOf {
			return true
		}
	}
	return s.rings[calm].len() > 0 || s.rings[shy].len()+s.rings[tardy].len() > 0 && s.strangers < s.strangersMax()
}

// Offer says that a host has work. It is picked when its turn has come and it may be asked.
func (s *Scheduler) Offer(h *Host, now time.Time) {
	h.wants = true
	s.enter(h, now)
}

// enter queues a host with work where it belongs now. A saturated one comes back with its permit, a banned one when it
// is configured anew.
func (s *Scheduler) enter(h *Host, now time.Time) {
	if !h.wants || h.queued || h.banned {
		return
	}
	if at := h.Opens(Fetch, now); at.After(now) {
		h.at = at
		if h.place == 0 {
			heap.Push(&s.timed, h)
		} else {
			heap.Fix(&s.timed, h.place-1)
		}
		return
	}
	if h.place != 0 {
		heap.Remove(&s.timed, h.place-1)
	}
	if h.running >= h.Limit() {
		return
	}
	h.queued = true
	switch {
	case !h.proven:
		s.rings[shy].push(h)
	case h.running >= s.share():
		s.rich = append(s.rich, h)
	case s.strange(h):
		s.rings[tardy].push(h)
	default:
		s.rings[calm].push(h)
	}
}

// Reconsider queues a host whose limits were changed, if it has work.
func (s *Scheduler) Reconsider(h *Host, now time.Time) { s.enter(h, now) }

// Wake queues the hosts whose time has come, and gives the time of the next; zero: nobody waits for one.
func (s *Scheduler) Wake(now time.Time) time.Time {
	for len(s.timed) > 0 {
		h := s.timed[0]
		if h.at.After(now) {
			return h.at
		}
		heap.Pop(&s.timed)
		s.enter(h, now)
	}
	return time.Time{}
}

// Trusts says whether a host may be given a permit as far as it is known.
func (s *Scheduler) Trusts(h *Host) bool {
	return !s.strange(h) || s.strangers < s.strangersMax()
}

// Pick is the host whose turn it is, and that may be asked now; nil if there is none or no permit is free. It is
// taken for a host without work until it is offered again.
func (s *Scheduler) Pick(now time.Time) *Host {
	s.Wake(now)
	for s.free > 0 {
		h := s.first()
		if h == nil {
			break
		}
		h.queued = false
		if !h.Open(Fetch, now) || h.proven && h.running >= s.share() || !s.Trusts(h) {
			s.enter(h, now)
			continue
		}
		h.wants = false
		return h
	}
	if s.free == 0 {
		return nil
	}
	if h := s.pickRich(now, false); h != nil || s.free <= s.permits/keepOf {
		return h
	}
	return s.pickRich(now, true)
}

// pickRich is Pick among those at their share, of which the slow ones come when there are no others.
func (s *Scheduler) pickRich(now time.Time, slow bool) *Host {
	for i := 0; i < len(s.rich); {
		h := s.rich[i]
		if s.slow(h) != slow && h.Open(Fetch, now) {
			i++
			continue
		}
		s.leaveRich(h)
		if !h.Open(Fetch, now) {
			s.enter(h, now)
			continue
		}
		h.wants = false
		return h
	}
	return nil
}

func (s *Scheduler) leaveRich(h *Host) {
	if i := slices.Index(s.rich, h); i >= 0 {
		s.rich = slices.Delete(s.rich, i, i+1)
		h.queued = false
	}
}

// first takes who comes next of those below their share, of each ring in turn.
func (s *Scheduler) first() *Host {
	for range s.rings {
		s.turn = (s.turn + 1) % len(s.rings)
		if q := &s.rings[s.turn]; q.len() > 0 && (s.turn == calm || s.strangers < s.strangersMax()) {
			return q.pop()
		}
	}
	return nil
}

// slow says whether the host holds its permits for long. At its share, it has to leave those that are free to others,
// who may come.
func (s *Scheduler) slow(h *Host) bool { return h.hold > slowTimes*s.hold }

// strange says whether a host gets of a part of the permits only: with the others it might go nowhere for long.
func (s *Scheduler) strange(h *Host) bool {
	return !h.proven || h.hold > min(max(tardyTimes*s.usual, tardyMin), tardyMax)
}

// Begin gives a host a permit of its own and one of ours. It is open, and trusted.
func (s *Scheduler) Begin(h *Host, now time.Time) Permit {
	p := h.Limiter.Begin(Fetch, now)
	p.stranger = s.strange(h)
	s.free--
	if p.stranger {
		s.strangers++
	}
	return p
}

// Leave gives back the host's part of a permit: it has done what it was asked. So does who had no other part (Limiter.Begin).
func (s *Scheduler) Leave(h *Host, now time.Time) {
	h.End()
	if h.queued && h.running < s.share() {
		s.leaveRich(h) // if it is there
	}
	s.enter(h, now)
}

// Return gives back our part of a permit.
func (s *Scheduler) Return(h *Host, p Permit, now time.Time) {
	s.free++
	if p.stranger {
		s.strangers--
	}
	held := max(now.Sub(p.since), 0)
	if h.hold == 0 {
		h.hold = held
	}
	if s.hold == 0 {
		s.hold, s.usual = held, held
	}
	h.hold += (held - h.hold) / 8
	s.hold += (held - s.hold) / 64
	if held > s.usual { // not by how much: those that hang now and then are not to make it usual
		s.usual += s.usual/64 + 1
	} else {
		s.usual -= s.usual / 64
	}
}
