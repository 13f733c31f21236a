// Package copies records the copies that commands make from the checkpoints of a daemon.
//
// # Purpose
//
// A command such as 'cistern backup' copies a checkpoint by itself. It states what it makes when it
// asks for the checkpoint, and reports the result when it ends. A Registry keeps the last result of
// each kind and destination, so that an operator can see which backup was the last good one.
//
// # Invariants
//
//  1. A copy is under way from Begin until its result is reported or its command is gone, whichever
//     comes first. A command that is gone without a report has failed, and so has one that was
//     under way when the daemon ended.
//  2. A success is kept until the next success of the same kind and destination, whatever fails in
//     between, and survives a restart. A result is durable when Report returns without an error.
//  3. There are at most rowsMax destinations of each kind. The one that was used least recently
//     goes first, and never one with a copy under way.
//  4. Validate refuses each text that is too long, has more than one line, or could control a
//     terminal, and each destination that has a user or a query in the place of its host.
//
// # Concurrency
//
// All methods may be called from any goroutine. Results are in memory before they are saved, so
// that readers never wait for the disk.
//
// # Files
//
//   - copy.go: Kind, Statement, Result, and their limits; text.go: texts within these limits
//   - row.go: Row, Keeper: what survives a restart
//   - registry.go: Registry; metrics.go: metrics
package copies
