package webhook

import "time"

// Limits of webhooks. The number of subscriptions bounds the number of webhooks.
const (
	// bodyBytesMax ends the events of a request; one event may be longer, 14 MiB at most. With 64
	// and 100 requests in flight, requests hold up to 164 × 4 MiB.
	bodyBytesMax = 4 << 20
	// requestsMax bounds the requests in flight of all webhooks, beside the first request of each:
	// endpoints that answer late leave one request to each of the others.
	requestsMax = 64
	// requestTimeout bounds one request, with its answer.
	requestTimeout = 20 * time.Second
	// answerBytesMax is how much of an answer is read. Nothing of it is kept.
	answerBytesMax = 64 << 10
	// idleMax is how many idle connections each host keeps, as many as a webhook may use.
	idleMax = 16
	// urlBytesMax bounds a URL.
	urlBytesMax = 2048
	// errorBytesMax bounds the error that the state of a webhook keeps.
	errorBytesMax = 200
	// slowestMax bounds the wait that an endpoint may ask for.
	slowestMax = time.Hour
	// logEvery is how often the failures of one webhook are logged.
	logEvery = 10 * time.Minute
)

// retries are the waits before each attempt of a request that fails, as Standard Webhooks suggests.
// A webhook is parked after the last, or if nothing has succeeded for as long as all take.
var retries = [...]time.Duration{0, 5 * time.Second, 5 * time.Minute, 30 * time.Minute,
	2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour}

// patience is how long a webhook may fail until it is parked: all retries, 76 hours.
func patience() (all time.Duration) {
	for _, d := range retries {
		all += d
	}
	return all
}
