// Package backlinks answers queries for what links to a subject.
//
// # Purpose
//
// It answers the methods of blue.microcosm.links and the older routes below /links from the index
// of links (store/linkindex), in the shapes that the running service has: clients depend on them.
//
// # Invariants
//
//  1. A link of an account that is hidden now is in no page. Counts are those of the index: they
//     have such links until the index has passed the account event.
//  2. A link that exists from the first page to the last is listed exactly once, whatever is
//     written meanwhile. A page may be shorter than its limit, or empty; the list ends with a page
//     without a cursor.
//  3. The headers of an answer state up to which event of the log the index was complete before the
//     answer was computed.
//  4. An answer takes bounded work and memory: limits.go.
//  5. A damaged index does not look like a damaged store, which would end the daemon.
//
// # Concurrency
//
// Backlinks may be used by any goroutine. The caller bounds how many answers are computed at a
// time.
//
// # Files
//
//	backlinks.go  Options, Backlinks, headers  scope.go   parameters
//	list.go       records and accounts         count.go   counts
//	many.go       getManyToMany                window.go  getManyToManyCounts
//	other.go      other subjects of a record   limits.go  every limit
package backlinks
