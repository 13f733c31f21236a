// Package gate pauses parts of the daemon.
//
// # Purpose
//
// A part that brings data in has one Gate, which cmd owns. The operator, the guard of the disk and
// whatever else has a cause to pause the part shut its gate; the part looks at the gate before it
// begins something, and the operator reads the causes in /stats.
//
// # Invariants
//
//  1. A gate is shut while at least one cause holds it shut. Two causes do not undo each other.
//  2. The part finishes what it began before the gate was shut, unless the cause halts it: then the
//     context of Gate.Run ends, and the part runs anew when no cause halts it any more.
//
// # Concurrency
//
// Everything but OnChange may be called from any goroutine.
//
// # Files
//
//   - gate.go: Gate and its causes
package gate
