// Package hosts keeps backfill polite to the hosts that it asks.
//
// # Purpose
//
// Say why a host did not answer a request, or may not be sent one.
//
// # Invariants
//
//  1. An error says whether the host answered (AnswerError) or was not asked (BusyError, ErrBanned).
//
// # Concurrency
//
// None: errors are values.
//
// # Files
//
//   - errors.go: the errors
package hosts
