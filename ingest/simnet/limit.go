package simnet

import (
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// Limit is how much a host answers. Streams do not count. All clients are one to it: they come from one address.
type Limit struct {
	// InFlight is how many requests may be in progress. Default 0, any number.
	InFlight int
	// Requests is how many may come in a window. Every answer tells of it as the reference PDS does, in RateLimit-Limit,
	// -Remaining, -Reset and -Policy. Default 0, any number.
	Requests int
	// Window begins with the first request after the last one, and ends with a whole second. Default 5 minutes.
	Window time.Duration
}

// noticeTime is how long a client may take until it heeds an answer: requests cross it on the wire, and tests run
// on busy machines.
const noticeTime = time.Second

// meter counts requests against a limit. It belongs to its host's mu.
type meter struct {
	limit Limit
	open  int       // requests being answered
	used  int       // requests in the window
	ends  time.Time // of the window
	told  time.Time // when an answer last said to wait
	until time.Time // as long as it said
}

// admission is what the meter says of one request.
type admission struct {
	limited   bool // there is a window to tell of
	limit     Limit
	remaining int
	ends      time.Time
	wait      time.Duration // not zero: the request is refused
}

// SetLimit chooses how much the host answers, from now on.
func (h *Host) SetLimit(l Limit) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.meter.limit = l
	h.meter.used, h.meter.ends = 0, time.Time{}
}

// admit counts a request and judges it. Called with mu held.
func (h *Host) admit(c call, now time.Time) admission {
	m := &h.meter
	m.open++
	if now.Before(m.until) && now.Sub(m.told) > noticeTime {
		h.log.Early[c.endpoint]++
	}
	a := admission{limit: m.limit, limited: m.limit.Requests > 0}
	if a.limited {
		if !now.Before(m.ends) {
			m.used = 0
			m.ends = now.Add(defaultTo(m.limit.Window, 5*time.Minute) + time.Second - 1).Truncate(time.Second)
		}
		m.used++
		a.ends, a.remaining = m.ends, max(0, m.limit.Requests-m.used)
		if m.used > m.limit.Requests {
			h.log.Refused++
			a.wait = m.ends.Sub(now)
			return a
		}
	}
	if m.limit.InFlight > 0 && m.open > m.limit.InFlight {
		h.log.Excess++
		a.wait = time.Second
	}
	return a
}

// tell notes that an answer which was just given says when to come again.
func (h *Host) tell(wait time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if until := now.Add(wait); until.After(h.meter.until) {
		h.meter.told, h.meter.until = now, until
	}
}

// setHeader tells of the window.
func (a admission) setHeader(h http.Header) {
	if !a.limited {
		return
	}
	h.Set("RateLimit-Limit", strconv.Itoa(a.limit.Requests))
	h.Set("RateLimit-Remaining", strconv.Itoa(a.remaining))
	h.Set("RateLimit-Reset", strconv.FormatInt(a.ends.Unix(), 10))
	h.Set("RateLimit-Policy", fmt.Sprintf("%d;w=%d", a.limit.Requests, defaultTo(a.limit.Window, 5*time.Minute)/time.Second))
}

// refuse answers a request beyond the limits.
func (a admission) refuse(w http.ResponseWriter) {
	w.Header().Set("Retry-After", strconv.Itoa(int((a.wait+time.Second-1)/time.Second)))
	writeError(w, http.StatusTooManyRequests, "RateLimitExceeded", "Rate Limit Exceeded")
}

// Violations is how many requests came against what the host had said: before it wanted any, or more at a time than it answers.
func (l Log) Violations() int {
	n := l.Excess
	for _, early := range l.Early {
		n += early
	}
	return n
}
