// Package phase takes the daemon from work to rest and back.
//
// # Purpose
//
// An operator who copies the files of the store, or takes a snapshot of the volume, suspends the
// daemon first: it ends its work over the network, then keeps all writes from the disk, and goes on
// afterwards as if nothing had been. A daemon that stops takes the same way.
//
// # Invariants
//
//  1. The phases follow in one order: active, draining, suspended, and back. The gates of the
//     network shut before the disk does, and open after it: work that would need the disk does not
//     begin while the disk may be shut.
//  2. The disk is shut only once all that began before the gates shut has ended and is durable, or
//     is such that losing it loses nothing (Part.Patience).
//  3. A phase other than active ends by itself at a time that was set with it. No phase survives
//     the process.
//  4. After Stop the disk stays open and the gates stay shut.
//  5. A Keeper that is suspended for good (Options.Suspended) refuses every phase and opens
//     nothing.
//
// # Concurrency
//
// A Machine belongs to one goroutine at a time. The methods of a Keeper may be called from any
// goroutine; Run, which alone calls the functions of its Options, owns none but its own.
//
// # Files
//
//   - machine.go: Machine, which decides what comes next; it does nothing itself and has no clock
//   - keeper.go: Options, Keeper: does what the Machine decides
//   - status.go: Status and its metric
package phase
