package webhook

import (
	"net/http"
	"time"

	"cistern/api/deliver"
	"cistern/api/durable"
	"cistern/store"
)

// Endpoint is an endpoint.
type Endpoint struct{ e *endpoint }

// Outcome is an outcome.
type Outcome = outcome

// The verdicts, and what the end of a request changed.
const (
	Succeeded = succeeded
	Failed    = failed
	SlowDown  = slowDown
	Gone      = gone

	Nothing   = nothing
	Faltered  = faltered
	Worsened  = worsened
	Parked    = parked
	Recovered = recovered
)

// Retries are the waits before attempts.
var Retries = retries

// Patience is patience.
var Patience = patience

// NewOutcome returns an outcome.
func NewOutcome(v verdict, after time.Duration) Outcome {
	o := outcome{verdict: v, after: after}
	if v != succeeded {
		o.err = "it failed"
	}
	return o
}

func NewEndpoint(most int, kept store.WebhookState, jitter func() float64, now time.Time) Endpoint {
	return Endpoint{newEndpoint(most, kept, jitter, now)}
}

func (e Endpoint) Begin(now time.Time) (round uint64, at time.Time, ok bool) { return e.e.begin(now) }
func (e Endpoint) Cancel()                                                   { e.e.cancel() }
func (e Endpoint) End(round uint64, o Outcome, now time.Time) change         { return e.e.end(round, o, now) }
func (e Endpoint) Kept() store.WebhookState                                  { return e.e.kept }
func (e Endpoint) Limit() int                                                { return e.e.limit }
func (e Endpoint) InFlight() int                                             { return e.e.inFlight }
func (e Endpoint) Phase() string                                             { return durable.WebhookPhase(e.e.kept, e.e.inFlight) }

// HoldSlots takes all requests that webhooks share, until release.
func (r *Runner) HoldSlots() (release func()) {
	if !r.slots.TryAcquire(requestsMax) {
		panic("some slots are taken")
	}
	return func() { r.slots.Release(requestsMax) }
}

// BodyOf returns the body of a request.
func BodyOf(messages []deliver.Message, now time.Time) []byte { return bodyOf(messages, now) }

// IDOf returns the id of a request.
func IDOf(name, epoch string, messages []deliver.Message) string { return idOf(name, epoch, messages) }

// Judge returns the class and the wait of an answer.
func Judge(code int, h http.Header, now time.Time) (class string, v verdict, after time.Duration) {
	o := judge(&http.Response{StatusCode: code, Header: h}, now)
	return o.class, o.verdict, o.after
}
