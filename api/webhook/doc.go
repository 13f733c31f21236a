// Package webhook posts the events of durable subscriptions to URLs, as Standard Webhooks says.
//
// # Purpose
//
// It is the consumer of each subscription that has a webhook: it takes events from the feed of the
// subscription (package deliver), signs and posts them, and acknowledges what the endpoint took.
//
// # Invariants
//
//  1. Events are acknowledged by a 2xx answer to the request that had them, and by nothing else.
//     What a request did not deliver comes again, first, by the same sender: of an account no event
//     is sent before all earlier ones were taken.
//  2. A webhook makes at most as many requests at a time as were put, one while its endpoint fails,
//     and none while it is parked. All of them together make at most requestsMax beside the first
//     request of each.
//  3. A request that fails is repeated after the waits of retries, or after what the endpoint asks
//     for. When they have run out the webhook is parked, with the last error, until it is put
//     again or resumed. Waits and failures survive a restart.
//  4. Connections go to public addresses only, which is checked when each is made; no redirect is
//     followed.
//  5. Secrets and URLs are neither in errors nor in the log.
//  6. While a webhook waits, it holds the ids of its events, and not the events.
//
// # Concurrency
//
// Run owns all goroutines: of each webhook one for each request that may be in flight, each with
// the two of its feed, and one that watches for changes. The mu of a delivery is taken before that
// of its subscription.
//
// # Files
//
//	runner.go    Options, Runner: all webhooks
//	delivery.go  delivery: one of them; sender: one of its requests after the other
//	state.go     endpoint: the state machine, pure
//	request.go   the request and what its answer means
//	message.go   body, id and signature      url.go  CheckURL
//	limits.go    every limit                 metrics.go
package webhook
