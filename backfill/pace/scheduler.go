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
	place  int           // in the heap of hosts that wait for a time, from 1; 0: not in it
	at     time.Time     // the time that it waits for
	hold   time.Duration // mean time for which a permit of it is held
}

// Idle reports whether the scheduler has nothing to do for the host.
func (h *Host) Idle(now time.Time) bool {
	return !h.wants && !h.queued && h.place == 0 && h.running == 0 && !h.Parked(now)
}

const (
	// restrictedShare is the percentage of the permits that restricted hosts may hold together:
	// hosts that have not answered as expected yet, or are stuck.
	restrictedShare = 75
	// A host is stuck if it holds permits for more than stuckTimes the median, but the bound is at
	// least stuckMin and at most stuckMax. Large repositories at many hosts are not above it, and a
	// host that hangs is, whatever the other hosts do.
	stuckTimes         = 8
	stuckMin, stuckMax = time.Second, 8 * time.Second
	// A host that holds a sixteenth (shareOf) of the permits comes after hosts that hold less. A
	// slow host then leaves a quarter (keepOf) free.
	shareOf = 16
	keepOf  = 4
	// A host is slow if it holds permits for more than slowTimes the mean.
	slowTimes = 2
)

// The rings of a Scheduler. The hosts in all but the first are restricted.
const (
	ringProven   = iota // proven hosts below their share
	ringUnproven        // hosts that have not answered as expected yet
	ringStuck           // proven hosts below their share that hold permits for very long
)

// Scheduler shares permits among hosts that have work.
type Scheduler struct {
	permits, free int
	restricted    int // permits given to hosts that were restricted at the time

	rings [3]ring   // of hosts that may be asked now
	turn  int       // the ring that was last asked for a host
	full  []*Host   // hosts at their share or above: at most permits ÷ share
	timed timedHeap // hosts that have work and wait for a time

	hold, usual time.Duration // how long a permit is held: mean and median
}

// NewScheduler returns a scheduler with a number of permits.
func NewScheduler(permits int) *Scheduler { return &Scheduler{permits: permits, free: permits} }

// Free returns the number of permits that are free.
func (s *Scheduler) Free() int { return s.free }

func (s *Scheduler) restrictedMax() int { return max(1, s.permits*restrictedShare/100) }

func (s *Scheduler) share() int { return max(1, s.permits/shareOf) }

// Crowded reports whether no permit is free while hosts that may be asked have work.
func (s *Scheduler) Crowded() bool {
	return s.free == 0 && s.rings[ringProven].len()+s.rings[ringUnproven].len()+
		s.rings[ringStuck].len()+len(s.full) > 0
}

// Ready reports whether Pick might find a host.
func (s *Scheduler) Ready() bool {
	if s.free == 0 {
		return false
	}
	for _, h := range s.full {
		if !s.slow(h) || s.free > s.permits/keepOf {
			return true
		}
	}
	return s.rings[ringProven].len() > 0 ||
		s.rings[ringUnproven].len()+s.rings[ringStuck].len() > 0 && s.restricted < s.restrictedMax()
}

// Offer records that a host has work. It is picked when its turn has come and it may be asked.
func (s *Scheduler) Offer(h *Host, now time.Time) {
	h.wants = true
	s.enter(h, now)
}

// enter queues a host that has work. A host at its limit is queued when it returns a permit, a
// banned one when it is configured anew.
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
		s.rings[ringUnproven].push(h)
	case h.running >= s.share():
		s.full = append(s.full, h)
	case s.isRestricted(h):
		s.rings[ringStuck].push(h)
	default:
		s.rings[ringProven].push(h)
	}
}

// Reconsider queues a host whose limits were changed, if it has work.
func (s *Scheduler) Reconsider(h *Host, now time.Time) { s.enter(h, now) }

// Wake queues the hosts whose time has come, and returns the time of the next; zero if no host
// waits.
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

// Trusts reports whether a host may be given a permit: it is not restricted, or restricted hosts
// hold fewer permits than they may.
func (s *Scheduler) Trusts(h *Host) bool {
	return !s.isRestricted(h) || s.restricted < s.restrictedMax()
}

// Pick returns the host whose turn it is among the hosts that may be asked now, or nil if there is
// no such host or no free permit. The host counts as having no work until it is offered again.
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
	if h := s.pickFull(now, false); h != nil || s.free <= s.permits/keepOf {
		return h
	}
	return s.pickFull(now, true)
}

// pickFull picks among the hosts at their share that are slow, or that are not.
func (s *Scheduler) pickFull(now time.Time, slow bool) *Host {
	for i := 0; i < len(s.full); {
		h := s.full[i]
		if s.slow(h) != slow && h.Open(Fetch, now) {
			i++
			continue
		}
		s.leaveFull(h)
		if !h.Open(Fetch, now) {
			s.enter(h, now)
			continue
		}
		h.wants = false
		return h
	}
	return nil
}

func (s *Scheduler) leaveFull(h *Host) {
	if i := slices.Index(s.full, h); i >= 0 {
		s.full = slices.Delete(s.full, i, i+1)
		h.queued = false
	}
}

// first takes the next host below its share, from each ring in turn.
func (s *Scheduler) first() *Host {
	for range s.rings {
		s.turn = (s.turn + 1) % len(s.rings)
		if q := &s.rings[s.turn]; q.len() > 0 &&
			(s.turn == ringProven || s.restricted < s.restrictedMax()) {
			return q.pop()
		}
	}
	return nil
}

// slow reports whether the host holds its permits for long. At its share, a slow host leaves the
// free permits to hosts that may come.
func (s *Scheduler) slow(h *Host) bool { return h.hold > slowTimes*s.hold }

// isRestricted reports whether h is unproven or stuck. Such hosts share a bounded part of the
// permits, since they may hold them for long without a result.
func (s *Scheduler) isRestricted(h *Host) bool {
	return !h.proven || h.hold > min(max(stuckTimes*s.usual, stuckMin), stuckMax)
}

// Begin takes a permit of the host and one of the scheduler. The host is Open, and Trusts holds.
func (s *Scheduler) Begin(h *Host, now time.Time) Permit {
	p := h.Limiter.Begin(Fetch, now)
	p.restricted = s.isRestricted(h)
	s.free--
	if p.restricted {
		s.restricted++
	}
	return p
}

// Leave releases the host's part of a permit, once the host has answered. A permit of Limiter.Begin
// has no other part.
func (s *Scheduler) Leave(h *Host, now time.Time) {
	h.End()
	if h.queued && h.running < s.share() {
		s.leaveFull(h) // if it is in the list
	}
	s.enter(h, now)
}

// Return releases the scheduler's part of a permit.
func (s *Scheduler) Return(h *Host, p Permit, now time.Time) {
	s.free++
	if p.restricted {
		s.restricted--
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
	if held > s.usual { // a median: a host that hangs counts once, however long it hangs
		s.usual += s.usual/64 + 1
	} else {
		s.usual -= s.usual / 64
	}
}
