// Package gate pauses parts of the daemon.
//
// # Purpose
//
// Each part of the daemon that brings data in has one Gate, which cmd owns. A cause to pause the
// part, such as the operator's switch or a disk below its reserve, shuts the gate. The part checks
// the gate before it begins new work, and /stats shows the causes.
//
// # Invariants
//
//  1. A gate is shut while at least one cause holds it shut. Ending one cause leaves the others in
//     force.
//  2. The part finishes work that it began before the gate was shut, unless a cause halts it. Then
//     the context of Gate.Run ends, and the part is started again when no cause halts it any more.
//  3. Once a gate is shut and no work is counted any more, none begins until the gate is open.
//
// # Concurrency
//
// Everything but OnChange may be called from any goroutine. Gate.Run owns one goroutine, which
// waits for a cause that halts the part.
//
// # Files
//
//   - gate.go: Gate and its causes
package gate
