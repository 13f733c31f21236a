package pace

import "time"

// window limits the requests that begin in any period of a length. A burst of them may begin at
// once, and the others begin at even distances. Burst and others together are the limit, so that no
// period has more, wherever it begins. A new window has no burst: an earlier process may have spent
// it.
type window struct {
	every time.Duration // distance of requests, 0 for no limit
	slack time.Duration // how much earlier than at even distance a request may begin
	next  time.Time     // when the next is due at even distance
}

// newWindow allows n requests in length, of which burst may begin at once.
func newWindow(n, burst int, length time.Duration) window {
	if n <= 0 {
		return window{}
	}
	burst = max(1, min(burst, n))
	spread := time.Duration(n - burst + 1)
	every := (length + spread - 1) / spread
	return window{every: every, slack: every * time.Duration(burst-1)}
}

// opens returns the time from which on a request may begin.
func (w *window) opens() time.Time {
	if w.every == 0 || w.next.IsZero() {
		return time.Time{}
	}
	return w.next.Add(-w.slack)
}

// spend counts a request that begins.
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

// refund takes back a request that was not sent.
func (w *window) refund() {
	if !w.next.IsZero() {
		w.next = w.next.Add(-w.every)
	}
}
