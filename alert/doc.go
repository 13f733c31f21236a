// Package alert decides which failures an operator must know of, and sends word of them.
//
// # Purpose
//
// Among millions of requests some always fail, and are tried again. A Board follows each subject
// that fails, such as a source or an operation, and turns it to alert only once it has failed for
// long enough and often enough.
//
// # Invariants
//
//  1. A subject alerts once it has failed without a break for Policy.After and for Policy.Attempts
//     attempts, or at once if its failure is final. It never alerts otherwise.
//  2. A subject that does not fail any more is ok. Its next failure begins a new grace.
//  3. A Board has at most subjectsMax subjects. Those that alert stay; failures beyond are counted.
//  4. Each turn to alert, and from alert to ok, is one message. Sending never delays the Board: the
//     queue is bounded, the oldest message is dropped, and each message is tried sendsMax times.
//  5. The graces and alerts are in memory. After a restart a subject that fails begins a new grace,
//     unless its failure states since when it lasts.
//
// # Concurrency
//
// Board is a plain value: failures and the time are arguments. Watcher.Run owns two goroutines, one
// that looks and one that sends. Its other methods may be called from any goroutine.
//
// # Files
//
//   - board.go: Board, the state machine; policy.go: Kind, Policy
//   - watcher.go: Watcher, which looks; sender.go: the queue of messages, and their retries
//   - metrics.go, limits.go
package alert
