package simnet

import (
	"cmp"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// Limit bounds the requests that a host answers. Streams do not count. All clients count as one,
// since they have one address.
type Limit struct {
	// InFlight is how many requests may be in progress. Default 0, any number.
	InFlight int
	// Requests is how many may come in a window. Every answer states it as the reference PDS does, in
	// RateLimit-Limit, -Remaining, -Reset and -Policy. Default 0, any number.
	Requests int
	// Fetches is how many getRepo may come in a window. They have a quota of their own, which their
	// answers state, and do not count in Requests. Default 0, they count in Requests.
	Fetches int
	// Window begins with the first request after the last one, and ends with a whole second. Default
	// 5 minutes.
	Window time.Duration
}

// ReferenceLimit is that of the reference PDS, and the default of a network's hosts.
func ReferenceLimit() Limit { return Limit{Requests: 3000, Fetches: 6000, Window: 5 * time.Minute} }

// noticeTime is how long a client may take to obey an answer: requests cross it on the wire, and
// tests run on busy machines.
const noticeTime = time.Second

// meter counts requests against a limit. It belongs to its host's mu.
type meter struct {
	limit   Limit
	open    int    // requests being answered
	said    notice // of all requests
	fetches bucket
	others  bucket
}

// notice is the wait that answers asked for.
type notice struct {
	askedAt time.Time // when an answer last asked to wait
	until   time.Time // until when
}

// early reports whether a request comes too early although the client could know.
func (n *notice) early(now time.Time) bool {
	return now.Before(n.until) && now.Sub(n.askedAt) > noticeTime
}

func (n *notice) tell(now, until time.Time) {
	if until.After(n.until) {
		n.askedAt, n.until = now, until
	}
}

// bucket counts the requests of one quota.
type bucket struct {
	used int       // requests in the window
	ends time.Time // of the window
	said notice
}

// bucketOf is the quota in which a request counts, and its size; 0 is no quota.
func (m *meter) bucketOf(c call) (*bucket, int) {
	if c.endpoint == getRepo && m.limit.Fetches > 0 {
		return &m.fetches, m.limit.Fetches
	}
	return &m.others, m.limit.Requests
}

// admission is the decision of the meter on a request.
type admission struct {
	quota     int           // size of the quota in which it counts; 0: no quota
	window    time.Duration // of the quota
	remaining int
	ends      time.Time
	wait      time.Duration // not zero: the request is refused
	spent     bool          // because of the quota
}

// SetLimit sets the limit of the host from now on.
func (h *Host) SetLimit(l Limit) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.meter.limit = l
	h.meter.fetches.ends, h.meter.others.ends = time.Time{}, time.Time{}
}

// admit counts a request and judges it. Called with mu held.
func (h *Host) admit(c call, now time.Time) admission {
	m := &h.meter
	m.open++
	b, quota := m.bucketOf(c)
	if m.said.early(now) || b.said.early(now) {
		h.log.Early[c.endpoint]++
	}
	a := admission{quota: quota, window: cmp.Or(m.limit.Window, 5*time.Minute)}
	if quota > 0 {
		if !now.Before(b.ends) {
			b.used = 0
			b.ends = now.Add(a.window + time.Second - 1).Truncate(time.Second)
		}
		b.used++
		a.ends, a.remaining = b.ends, max(0, quota-b.used)
		if b.used > quota {
			h.log.Refused++
			a.wait, a.spent = b.ends.Sub(now), true
			return a
		}
	}
	if m.limit.InFlight > 0 && m.open > m.limit.InFlight {
		h.log.Excess++
		a.wait = time.Second
	}
	return a
}

// tell notes that an answer asked to wait with all requests.
func (h *Host) tell(wait time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	h.meter.said.tell(now, now.Add(wait))
}

// tellSpent notes that an answer stated a spent quota.
func (h *Host) tellSpent(c call, a admission) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b, _ := h.meter.bucketOf(c)
	b.said.tell(time.Now(), a.ends)
}

// setHeader states the window.
func (a admission) setHeader(h http.Header) {
	if a.quota == 0 {
		return
	}
	h.Set("RateLimit-Limit", strconv.Itoa(a.quota))
	h.Set("RateLimit-Remaining", strconv.Itoa(a.remaining))
	h.Set("RateLimit-Reset", strconv.FormatInt(a.ends.Unix(), 10))
	h.Set("RateLimit-Policy", fmt.Sprintf("%d;w=%d", a.quota, a.window/time.Second))
}

// refuse answers a request beyond the limits.
func (a admission) refuse(w http.ResponseWriter) {
	w.Header().Set("Retry-After", strconv.Itoa(int((a.wait+time.Second-1)/time.Second)))
	writeError(w, http.StatusTooManyRequests, "RateLimitExceeded", "Rate Limit Exceeded")
}

// Violations is the number of requests that disregarded an answer: they came too early, or too many
// at a time.
func (l Log) Violations() int {
	n := l.Excess
	for _, early := range l.Early {
		n += early
	}
	return n
}
