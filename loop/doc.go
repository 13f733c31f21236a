// Package loop wakes and delays the loops of the daemon.
//
// # Purpose
//
// The parts of the daemon are loops that look for work until a context ends. Package loop wakes
// such a loop, makes it wait, varies its delays, and distinguishes its end from a failure.
//
// # Invariants
//
//  1. No wake-up is lost: if a loop is woken while it works, its next wait returns at once.
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
