// Package collections answers queries about collections over all accounts.
//
// # Purpose
//
// It lists collections with their totals, counts what arrived on each day, and lists the records of
// a collection over all accounts, as JSON or as JSON lines.
//
// # Invariants
//
//  1. Nothing of a hidden account is listed or counted.
//  2. A record that exists from the first page to the last is listed exactly once, whatever is
//     written meanwhile: the cursor is a place in an order that does not change.
//  3. Only the last page of a list has no cursor. It is empty.
//  4. The work and the memory of an answer are bounded: by rowsMax and pageBytesMax, and in the
//     order of time by store.TimeOrderRepos, with which the memory does not grow. Others compute
//     between. Counts take a row for each total and day.
//
// # Concurrency
//
// Collections may be used by any goroutine. The caller bounds how many answers are computed at a
// time.
//
// # Files
//
//	collections.go  Options, Collections, totals and arrivals
//	records.go      the records of a collection
package collections
