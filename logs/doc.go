// Package logs writes the log of the daemon.
//
// # Purpose
//
// A host that fails a thousand times a second must not fill the disk with lines that say the same.
// The Handler bounds how many lines of one kind are written, and says how many it left out.
//
// # Invariants
//
//  1. The kind of a line is its level and its message. Messages are constant texts; what varies is
//     in attributes.
//  2. Of one kind, at most Options.Burst lines are written in Options.Window. Lines of level debug
//     are never left out.
//  3. Every line that is left out is counted: in the metrics at once, and in the log by the
//     attribute left_out of the next line of its kind, or by a line of its own once the window has
//     ended.
//  4. A Handler remembers at most kindsMax kinds. Lines of further kinds share one place.
//
// # Concurrency
//
// A Handler, and those derived from it by WithAttrs and WithGroup, may be used by any goroutine.
// They share one mutex, which is not held while a line is written. There is no goroutine: the time
// is that of the lines.
//
// # Files
//
//   - handler.go: Handler; kinds.go: how many lines of a kind were written; metrics.go
package logs
