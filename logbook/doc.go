// Package logbook keeps the newest log records in memory.
//
// # Purpose
//
// The dashboard shows the last log lines of a daemon. A Book takes them from the handler of the
// log, whatever becomes of its output.
//
// # Invariants
//
//  1. A Book has at most linesMax lines, each of at most messageBytesMax and attributesBytesMax
//     bytes of text.
//  2. It has the records of level Info and above, also if the handler that it wraps leaves them
//     out. That handler gets exactly the records that it would get without the Book.
//  3. Ids of lines rise by one, so that a reader that has seen an id gets each later line once, as
//     long as the Book has it.
//
// # Concurrency
//
// A Book and its handlers may be used by any goroutine.
//
// # Files
//
//   - book.go: Book, Line; handler.go: the handler
package logbook
