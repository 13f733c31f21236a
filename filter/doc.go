// Package filter decides what Cistern keeps.
//
// # Purpose
//
// It says of a collection whether a record in it makes an unknown repository one to follow.
//
// # Invariants
//
//  1. It is pure: a Filter never changes, and the same question gets the same answer.
//  2. A signal is an NSID, or the beginning of one that ends at a dot and stands before a star.
//
// # Concurrency
//
// A Filter may be shared.
//
// # Files
//
//	filter.go  Filter and its signals
package filter
