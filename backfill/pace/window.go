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
