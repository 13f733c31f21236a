// Package verify compares a store in use with itself.
//
// # Purpose
//
// It walks over all repositories that have a copy, and finds rows that disagree: records that do
// not make the root of the signed commit, bodies that do not have their CID, references and counts
// that are not those of the records. It repairs what it finds, by other rows or by another copy of
// the repository.
//
// # Invariants
//
//  1. A difference is counted only if one view of the store, at one point in time, shows it. What a
//     walk of several views shows is looked at again.
//  2. The place of the walk is kept in the store. A walk that was cancelled, or cut off by a crash,
//     goes on behind the last repository that it had saved; a walk that has ended leaves no place.
//  3. Repository by repository, the walk works for at most its share of the time, on one goroutine.
//     Reads of the disk are part of that time.
//  4. A repository is queued for another copy at most once for each rev, as long as the process
//     lives. Corrections of rows that derive from others are not limited.
//  5. A row that cannot be read is store.ErrCorrupt, and ends the walk.
//
// # Concurrency
//
// Run is one goroutine and starts none; runs must not overlap.
//
// # Files
//
//   - verifier.go: Verifier, Run, and its walk; mend.go: what is done about differences
//   - pacer.go: the share of the time; options.go, metrics.go
package verify
