// Package tap answers the requests of clients of tap, so that a program written for tap can use
// Cistern unchanged.
//
// # Purpose
//
// It has tap's routes other than /channel, which package deliver serves: repositories are added and
// removed, accounts looked up, and what the store counts is shown. The answers have tap's fields
// and words.
//
// # Invariants
//
//  1. An answer has every field that tap's published client demands, in the type that it demands.
//  2. A request costs no more than its rows: numbers of the whole store are counters, never a scan.
//  3. A request that names a repository which is refused changes none.
//  4. A repository that is added after it was removed has all its records listed again.
//
// # Concurrency
//
// An API may be used by any goroutine, and starts none.
//
// # Files
//
//	tap.go    Options, API, repositories and accounts
//	stats.go  what the store counts
//	limits.go
package tap
