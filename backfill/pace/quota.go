package pace

import "time"

// Kind is what a request asks for. Hosts may count kinds apart: the reference PDS counts getRepo in a quota of its own.
type Kind uint8

const (
	// Fetch is a request for a whole repository.
	Fetch Kind = iota
	// Query is any other request.
	Query

	kinds = 2
)

// Quota is what a host says of one of the limits that it has for us.
type Quota struct {
	Limit     int           // of the whole window, 0 if it does not say
	Remaining int           // requests left
	Reset     time.Time     // until then; zero: it said nothing
	Window    time.Duration // length that the policy names, 0 if it names none
}

// Spent reports whether the quota says that no request is left until its reset.
func (q Quota) Spent(now time.Time) bool { return q.Remaining <= 0 && q.Reset.After(now) }

// samePolicy reports whether two answers speak of the same limit.
func (q Quota) samePolicy(other Quota) bool {
	return q.Limit == other.Limit && q.Window == other.Window
}

// sameReset is how far apart the ends of one window may be told: hosts round them to seconds.
const sameReset = 2 * time.Second

// quotasMax bounds the policies of a host, at about 100 bytes each. The reference PDS has two.
const quotasMax = 4

// quotas are the limits that a host told of. Those of hosts that count kinds of requests apart differ by their policy.
type quotas []allowance

// told takes over what an answer to a request of a kind said.
func (qs *quotas) told(k Kind, q Quota, now time.Time, running int) {
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
	a.told(q, now, running)
}

// add makes room for one more policy, if need be in place of the one whose window ends first.
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

// opens is from when on a request of a kind may begin.
func (qs quotas) opens(k Kind, now time.Time) (at time.Time) {
	for i := range qs {
		if t := qs[i].opens(now); qs[i].counts[k] && t.After(at) {
			at = t
		}
	}
	return at
}

// spend notes that a request of a kind begins. A policy that no answer named in two windows is forgotten.
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

// exchange turns what was spent on one kind into what another costs, unless the quotas of the latter open later only: then
// it gives when. A quota that counts both has been paid.
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

// in gives the quotas whose windows have not ended.
func (qs quotas) in(now time.Time) (all []Quota) {
	for i := range qs {
		if qs[i].Reset.After(now) {
			all = append(all, qs[i].Quota)
		}
	}
	return all
}

// allowance keeps count of one quota that a host told.
type allowance struct {
	Quota
	next    time.Time     // when the next request is due
	length  time.Duration // of a window, at least
	guessed bool          // that the window is like the one before: no answer has told of it yet
	counts  [kinds]bool   // the kinds of requests whose answers named this policy
}

// told takes over what an answer said. Answers overtake each other, and requests under way may not be
// counted yet: within a window the lower number holds, unless ours is too low to be explained by them.
func (a *allowance) told(q Quota, now time.Time, running int) {
	q.Remaining = max(q.Remaining, 0)
	d := q.Reset.Sub(a.Reset)
	switch {
	case d > sameReset || a.guessed || !a.Reset.After(now):
		a.Quota, a.guessed = q, false
		a.length = max(a.length, q.Reset.Sub(now))
		a.Remaining = max(0, q.Remaining-max(0, running-1))
	case d < -sameReset && q.Remaining > 0:
		return // of a window before, or of another server behind the address, which has windows of its own
	case d < -sameReset:
		// The server that refused must be left alone, and its window is the one that counts from now on.
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

// spend counts a request. It reports false when the policy is to be forgotten.
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

// half reports whether half of the quota is spent. Of one without a limit that may always be so.
func (a *allowance) half() bool { return 2*a.Remaining <= a.Limit || a.Limit == 0 }
