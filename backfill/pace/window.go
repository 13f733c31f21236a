package pace

import "time"

// window lets a number of requests begin in any stretch of its length. Some may follow each other at
// once, the others come at even distances, and both together are the number: so no stretch
// has more, wherever it begins. It starts without those that may follow each other, for we may have begun
// them before we forgot.
type window struct {
	every time.Duration // distance of requests, 0 for no limit
	slack time.Duration // how far ahead of that they may come
	next  time.Time     // when the next is due at even distance; it may come slack earlier
}

// newWindow allows n requests in length, of which burst may follow each other at once.
func newWindow(n, burst int, length time.Duration) window {
	if n <= 0 {
		return window{}
	}
	burst = max(1, min(burst, n))
	spread := time.Duration(n - burst + 1)
	every := (length + spread - 1) / spread
	return window{every: every, slack: every * time.Duration(burst-1)}
}

// opens is from when on a request may begin.
func (w *window) opens() time.Time {
	if w.every == 0 || w.next.IsZero() {
		return time.Time{}
	}
	return w.next.Add(-w.slack)
}

// spend notes that one begins.
func (w *window) spend(now time.Time) {
	if w.every == 0 {
		return
	}
	if w.next.IsZero() {
		w.next = now.Add(w.slack)
	}
	if w.next.Before(now) {
		w.next = now
	}
	w.next = w.next.Add(w.every)
}

// refund takes back one that was not sent.
func (w *window) refund() {
	if !w.next.IsZero() {
		w.next = w.next.Add(-w.every)
	}
}

// Quota is what a host says of the limit that it has for us.
type Quota struct {
	Limit     int       // of the whole window, 0 if it does not say
	Remaining int       // requests left
	Reset     time.Time // until then; zero: it said nothing
}

// sameReset is how far apart the ends of one window may be told: hosts round them to seconds.
const sameReset = 2 * time.Second

// allowance keeps count of the quota that the host told last.
type allowance struct {
	Quota
	next    time.Time     // when the next request is due
	length  time.Duration // of a window, at least
	guessed bool          // that the window is like the one before: no answer has told of it yet
}

// told takes over what an answer said. Answers overtake each other, and requests under way may not be
// counted yet: within a window the lower number holds, unless ours is too low to be explained by them.
func (a *allowance) told(q Quota, now time.Time, running int) {
	if !q.Reset.After(now) {
		return
	}
	q.Remaining = max(q.Remaining, 0)
	d := q.Reset.Sub(a.Reset)
	switch {
	case d > sameReset || a.guessed || !a.Reset.After(now):
		a.Quota, a.guessed = q, false
		a.length = max(a.length, q.Reset.Sub(now))
		a.Remaining = max(0, q.Remaining-max(0, running-1))
	case d < -sameReset:
		return // of a window before
	default:
		a.Limit = q.Limit
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

func (a *allowance) spend(now time.Time) {
	if !a.Reset.After(now) {
		if a.Limit == 0 {
			return // nothing is known
		}
		a.guessed, a.Remaining, a.Reset = true, a.Limit, now.Add(a.length)
	}
	if a.next.Before(now) {
		a.next = now
	}
	if 2*a.Remaining <= a.Limit || a.Limit == 0 {
		a.next = a.next.Add(a.Reset.Sub(now) / time.Duration(max(a.Remaining, 1)))
	}
	a.Remaining--
}

func (a *allowance) refund() { a.Remaining++ }
