// Package filter decides what Cistern keeps.
//
// # Purpose
//
// It says which repositories are followed, which of their records are wanted, and whether those that are not wanted
// are kept all the same; and it says of two filters whether one wants what the other does.
//
// # Invariants
//
//  1. It is pure: a Filter never changes, and the same question gets the same answer.
//  2. A signal or collection is an NSID, or the beginning of one that ends at a dot and stands before a star. The star
//     is for one segment or more: app.bsky.* is not app.bsky.
//  3. No collections are all collections. No signals are none.
//  4. A filter has one written form: sets sorted, without doubles, never nil. Two that say the same are equal in it.
//  5. What is refused is refused whole, with every value that will not do named. Sets and texts are bounded.
//
// # Concurrency
//
// A Filter may be shared.
//
// # Files
//
//	filter.go  Config, Filter, what it matches and what it covers
//	patch.go   changes to a Config, as PATCH /filter has them
package filter
