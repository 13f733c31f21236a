package pace

import "time"

// Kind is the kind of a request. A host may have a quota for each kind: the reference PDS has one
// for getRepo.
type Kind uint8

const (
	// Fetch is a request for a whole repository.
	Fetch Kind = iota
	// Query is any other request.
	Query

	kinds = 2
)

// Quota is one rate limit as the host states it.
type Quota struct {
	Limit     int           // of the whole window, 0 if not stated
	Remaining int           // requests left
	Reset     time.Time     // end of the window; zero: nothing was stated
	Window    time.Duration // its length in the policy, 0 if not stated
}

// Spent reports whether no request is left until the reset.
func (q Quota) Spent(now time.Time) bool { return q.Remaining <= 0 && q.Reset.After(now) }

// samePolicy reports whether two answers state the same limit.
func (q Quota) samePolicy(other Quota) bool {
	return q.Limit == other.Limit && q.Window == other.Window
}

// sameReset is how far apart two stated ends of one window may be: hosts round them to seconds.
const sameReset = 2 * time.Second

// quotasMax bounds the policies of a host, at about 100 bytes each. The reference PDS has two.
const quotasMax = 4

// quotas are the rate limits that a host states. A host that limits each kind of request separately
// states one policy for each kind.
type quotas []allowance

// record stores the quota that is stated in an answer to a request of a kind.
func (qs *quotas) record(k Kind, q Quota, now time.Time, running int) {
	if !q.Reset.After(now) {
		return
	}
	of := -1
	for i := range *qs {
		if (*qs)[i].samePolicy(q) {
			of = i
		}
	}
	if of < 0 {
		of = qs.add()
	}
	a := &(*qs)[of]
	a.counts[k] = true
	a.record(q, now, running)
}

// add adds an empty policy. If there are quotasMax, it replaces the policy whose window ends first.
func (qs *quotas) add() int {
	if len(*qs) < quotasMax {
		*qs = append(*qs, allowance{})
		return len(*qs) - 1
	}
	first := 0
	for i := range *qs {
		if (*qs)[i].Reset.Before((*qs)[first].Reset) {
			first = i
		}
	}
	(*qs)[first] = allowance{}
	return first
}

// opens returns the earliest time at which a request of a kind may begin.
func (qs quotas) opens(k Kind, now time.Time) (at time.Time) {
	for i := range qs {
		if t := qs[i].opens(now); qs[i].counts[k] && t.After(at) {
			at = t
		}
	}
	return at
}

// spend counts a request of a kind that begins. A policy that no answer stated in two windows is
// forgotten.
func (qs *quotas) spend(k Kind, now time.Time) {
	kept := (*qs)[:0]
	for _, a := range *qs {
		if !a.counts[k] || a.spend(now) {
			kept = append(kept, a)
		}
	}
	*qs = kept
}

func (qs quotas) refund(k Kind) {
	for i := range qs {
		if qs[i].counts[k] {
			qs[i].Remaining++
		}
	}
}

// exchange refunds a request of one kind and spends a request of another. If the quotas of the
// latter open later, it changes nothing and returns that time. A quota that counts both kinds stays
// as it is.
func (qs *quotas) exchange(from, to Kind, now time.Time) (at time.Time) {
	for _, a := range *qs {
		if t := a.opens(now); a.counts[to] && !a.counts[from] && t.After(now) && t.After(at) {
			at = t
		}
	}
	if !at.IsZero() {
		return at
	}
	kept := (*qs)[:0]
	for _, a := range *qs {
		if a.counts[from] && !a.counts[to] {
			a.Remaining++
		}
		if a.counts[from] || !a.counts[to] || a.spend(now) {
			kept = append(kept, a)
		}
	}
	*qs = kept
	return at
}

// spare reports whether at least half of each quota of a kind is left.
func (qs quotas) spare(k Kind, now time.Time) bool {
	for i := range qs {
		a := &qs[i]
		if a.counts[k] && a.Reset.After(now) && a.half() {
			return false
		}
	}
	return true
}

// in returns the quotas whose windows have not ended.
func (qs quotas) in(now time.Time) (all []Quota) {
	for i := range qs {
		if qs[i].Reset.After(now) {
			all = append(all, qs[i].Quota)
		}
	}
	return all
}

// allowance counts the requests of one quota.
type allowance struct {
	Quota
	next   time.Time     // when the next request is due
	length time.Duration // minimal length of a window
	// no answer has stated the window yet: it is assumed to be like the previous one
	guessed bool
	counts  [kinds]bool // the kinds of requests whose answers state this policy
}

// record stores the quota of an answer. Answers overtake each other, and may not count the requests
// under way. So within a window the lower number is kept, unless the requests under way cannot
// explain the difference.
func (a *allowance) record(q Quota, now time.Time, running int) {
	q.Remaining = max(q.Remaining, 0)
	d := q.Reset.Sub(a.Reset)
	switch {
	case d > sameReset || a.guessed || !a.Reset.After(now):
		a.Quota, a.guessed = q, false
		a.length = max(a.length, q.Reset.Sub(now))
		a.Remaining = max(0, q.Remaining-max(0, running-1))
	case d < -sameReset && q.Remaining > 0:
		return // of an earlier window, or of another server at this address with its own windows
	case d < -sameReset:
		// This server refuses requests, so its window counts from now on.
		a.Quota = q
	default:
		if a.Remaining = min(a.Remaining, q.Remaining); q.Remaining > a.Remaining+2*running {
			a.Remaining = q.Remaining - running
		}
	}
}

func (a *allowance) opens(now time.Time) time.Time {
	switch {
	case !a.Reset.After(now):
		return time.Time{} // a new window
	case a.Remaining <= 0:
		return a.Reset
	}
	return a.next
}

// spend counts a request. It returns false when the policy is to be forgotten.
func (a *allowance) spend(now time.Time) bool {
	if !a.Reset.After(now) {
		if a.Limit == 0 {
			return !a.guessed // nothing is known
		}
		if a.guessed {
			return false
		}
		a.guessed, a.Remaining, a.Reset = true, a.Limit, now.Add(a.length)
	}
	if a.next.Before(now) {
		a.next = now
	}
	if a.half() {
		a.next = a.next.Add(a.Reset.Sub(now) / time.Duration(max(a.Remaining, 1)))
	}
	a.Remaining--
	return true
}

// half reports whether half of the quota is spent, true if its limit is unknown.
func (a *allowance) half() bool { return 2*a.Remaining <= a.Limit || a.Limit == 0 }
