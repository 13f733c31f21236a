package webhook

import (
	"time"

	"cistern/store"
)

// The reasons why a webhook is parked.
const (
	reasonGone    = "gone"    // it answered 410
	reasonFailing = "failing" // nothing has succeeded for too long
)

// verdict is what a request says about its endpoint.
type verdict uint8

const (
	succeeded verdict = iota
	failed
	slowDown // the endpoint asks for fewer requests
	gone     // the endpoint wants no requests any more
)

// outcome is how a request ended.
type outcome struct {
	verdict verdict
	class   string        // of metrics
	err     string        // "" if it succeeded
	after   time.Duration // if slowDown, how long the endpoint asks to wait; 0: it does not say
}

// change is what the end of a request changed.
type change uint8

const (
	nothing   change = iota
	faltered         // the first failure
	worsened         // another failure
	parked           // no more requests
	recovered        // the first success after failures
)

// endpoint is the state machine of one webhook: whether a request may be made now. It is idle,
// sending, backing off or parked (durable.WebhookPhase). It does no I/O, and time is an argument.
// No other file assigns its fields.
//
// While it backs off it makes one request at a time, not before a certain time. Only the requests
// of the present round count: one failure ends a round, and what else was in flight then is not
// counted as further failures.
type endpoint struct {
	most     int // requests in flight while none is refused
	limit    int // requests in flight now, from 1 to most
	inFlight int
	grown    int    // successes since limit changed
	round    uint64 // rises with every failure that counts, and with a recovery
	kept     store.WebhookState
	jitter   func() float64 // in [0,1)
}

// newEndpoint returns the endpoint with the state that was kept of it. A clock that was wrong must
// not make it wait for longer than any retry.
func newEndpoint(
	most int, kept store.WebhookState, jitter func() float64, now time.Time,
) *endpoint {
	longest := retries[len(retries)-1]
	kept.Next = min(kept.Next, now.Add(longest+longest/10).UnixMilli())
	kept.Since = min(kept.Since, now.UnixMilli())
	return &endpoint{most: most, limit: most, kept: kept, jitter: jitter}
}

// begin begins a request if one may be made now. Otherwise at is when it may be; zero: not before
// another request has ended, or never if the endpoint is parked. end or cancel must follow.
func (e *endpoint) begin(now time.Time) (round uint64, at time.Time, ok bool) {
	next := time.UnixMilli(e.kept.Next)
	switch {
	case e.kept.Parked != 0:
		return 0, time.Time{}, false
	case e.kept.Since == 0 && e.inFlight >= e.limit:
		return 0, time.Time{}, false
	case e.kept.Since != 0 && e.inFlight > 0:
		return 0, time.Time{}, false
	case e.kept.Since != 0 && now.Before(next):
		return 0, next, false
	}
	e.inFlight++
	return e.round, time.Time{}, true
}

// cancel ends a request that was not made, or that the daemon has cut.
func (e *endpoint) cancel() { e.inFlight-- }

// end ends a request of a round.
func (e *endpoint) end(round uint64, o outcome, now time.Time) change {
	e.inFlight--
	switch {
	case e.kept.Parked != 0:
		return nothing
	case o.verdict == gone: // whenever it was sent
		return e.park(reasonGone, o.err, now)
	case round != e.round:
		if o.verdict == slowDown && e.kept.Since != 0 {
			e.kept.Next = max(e.kept.Next, notBefore(now.Add(min(o.after, slowestMax))))
		}
		return nothing
	case o.verdict == succeeded && e.kept.Since == 0:
		e.grow()
		return nothing
	case o.verdict == succeeded:
		e.kept = store.WebhookState{}
		e.round++
		return recovered
	}
	return e.fail(o, now)
}

// grow has one more request in flight when as many have succeeded as may be in flight.
func (e *endpoint) grow() {
	if e.grown++; e.grown >= e.limit && e.limit < e.most {
		e.limit++
		e.grown = 0
	}
}

// fail counts a failure, and sets when to try again.
func (e *endpoint) fail(o outcome, now time.Time) change {
	e.round++
	first := e.kept.Since == 0
	if first {
		e.kept.Since = now.UnixMilli()
	}
	e.kept.Error = o.err
	var wait time.Duration
	if o.verdict == slowDown {
		e.kept.Slowed++
		e.limit, e.grown = max(1, e.limit/2), 0
		wait = e.slower(o.after)
	} else {
		e.kept.Failed++
		if e.kept.Failed >= len(retries) {
			return e.park(reasonFailing, o.err, now)
		}
		wait = e.about(retries[e.kept.Failed])
	}
	if now.Sub(time.UnixMilli(e.kept.Since)) >= patience() {
		return e.park(reasonFailing, o.err, now)
	}
	e.kept.Next = notBefore(now.Add(wait))
	if first {
		return faltered
	}
	return worsened
}

// notBefore returns the first millisecond that is not before a time.
func notBefore(t time.Time) int64 { return t.Add(time.Millisecond - 1).UnixMilli() }

// slower returns how long to wait after an answer that asks for fewer requests: as long as it asks
// for and up to a tenth more, or 5 s that double to an hour.
func (e *endpoint) slower(asked time.Duration) time.Duration {
	if asked > 0 {
		asked = min(asked, slowestMax)
		return asked + time.Duration(e.jitter()*float64(asked)/10)
	}
	wait := retries[1]
	for i := 1; i < e.kept.Slowed && wait < slowestMax; i++ {
		wait *= 2
	}
	return e.about(min(wait, slowestMax))
}

// about returns a duration that differs from d by up to a tenth.
func (e *endpoint) about(d time.Duration) time.Duration {
	return d + time.Duration((e.jitter()-0.5)*float64(d)/5)
}

// park ends all requests, until the state is set anew.
func (e *endpoint) park(reason, why string, now time.Time) change {
	e.round++
	if e.kept.Since == 0 {
		e.kept.Since = now.UnixMilli()
	}
	e.kept.Error, e.kept.Reason = why, reason
	e.kept.Next, e.kept.Parked = 0, now.UnixMilli()
	if reason == reasonGone {
		e.kept.Failed++
	}
	return parked
}
