// Package loop has the waits of loops.
//
// # Purpose
//
// The parts of the daemon are loops that look for work until a context ends. Package loop wakes
// such a loop, lets it wait, spreads its delays, and tells its end from a failure.
//
// # Invariants
//
//  1. No wake-up is lost: a loop that is woken while it works does not wait when it waits next.
//  2. Every wait ends with its context.
//
// # Concurrency
//
// Everything may be called from any goroutine. No function starts one.
//
// # Files
//
//   - loop.go: Wake, Sleep and Quiet; jitter.go: Jitter
package loop
