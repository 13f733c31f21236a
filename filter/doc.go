// Package filter decides what Cistern keeps, and which events a consumer wants.
//
// # Purpose
//
// It decides which repositories are followed, which of their records are wanted, and whether
// unwanted records are stored too. It also compares two filters: whether one wants all that the
// other wants.
//
// # Invariants
//
//  1. The package is pure: a Filter never changes, and its answers depend only on the arguments.
//  2. A signal or collection is an NSID, or the beginning of an NSID up to a dot, followed by a
//     star. The star stands for one segment or more: app.bsky.* does not match app.bsky.
//  3. An empty set of collections means all collections. An empty set of signals means no signal.
//  4. A filter has one normal form: its sets are sorted, without duplicates and never nil.
//     Equivalent filters have equal normal forms.
//  5. An invalid filter or patch is refused as a whole, with an error that names every invalid
//     value; of a filter of events the first 20, as any consumer can send one. Sets and texts are
//     bounded.
//
// # Concurrency
//
// A Filter may be used from any number of goroutines.
//
// # Files
//
//	filter.go  Config, Filter, matching and comparison
//	patch.go   changes to a Config, for PATCH /filter
//	events.go  Events: which events a consumer wants
package filter
