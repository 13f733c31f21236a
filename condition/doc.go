// Package condition pauses backfill and crawling while the machine or the operator demands it.
//
// # Purpose
//
// A Condition reads one measure, such as the free space of the disk, and compares it with the limit
// of an option. While one of them is not met, the Watcher holds the gates of backfill and crawling
// shut, with the measure and the limit as the reason.
//
// # Invariants
//
//  1. The gates have one cause for each condition that waits, under its name, and no other cause of
//     this package. A look that finds a condition met again opens the gates at once.
//  2. Between its limit and the measure at which it is met again, a condition stays as it was: a
//     measure that varies around the limit does not open and shut the gates with each look.
//  3. A measure that cannot be read is shown with the error. The condition stays as it was for
//     readGrace, and then pauses nothing until the measure can be read. It never stays shut for
//     ever because a file is missing.
//  4. Reasons have figures only. Paths and names are in Status.Subject, which the public listener
//     does not show.
//
// # Concurrency
//
// Look is called by one goroutine at a time: Run calls it, and owns no other goroutine. Status may
// be called from any goroutine, and so may the methods of Meter. No lock is held while a measure is
// read. Everything but Watcher, Meter and System is pure: readings and the time are arguments.
//
// # Files
//
//   - condition.go: Condition, Reading, Level
//   - state.go: State, Status, and the state machine of one condition
//   - watcher.go: Watcher, which looks and drives the gates; metrics.go, limits.go
//   - disk.go, hours.go, lag.go, mount.go, pressure.go: the conditions
//   - traffic.go: Meter, which counts and slows what hosts send, and its condition
//   - probe.go: Probe, which reads the machine
package condition
