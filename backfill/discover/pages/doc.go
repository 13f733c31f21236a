// Package pages reads listings page by page.
//
// # Purpose
//
// It asks hosts and relays for the pages of their listings, and decides where a listing ends,
// whether it is abandoned, and when it must be read again.
//
// # Invariants
//
//  1. The cost of an answer is bounded by the limits in limits.go. The entries of a page are
//     counted before they are decoded.
//  2. A listing that names the same accounts again, or does not end, is abandoned. The memory that
//     this takes does not depend on the length of the listing.
//  3. A listing that names nothing, or much less than before, is repeated before it is believed.
//
// # Concurrency
//
// Page, HostPage and Mark are values. A Watch belongs to one goroutine.
//
// # Files
//
//   - ask.go: requests for pages; page.go: their answers; limits.go: constants
//   - watch.go: where a listing ends; repeats.go: listings that repeat themselves
//   - mark.go: how far a listing was read, and when it is read again
package pages
