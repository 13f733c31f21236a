// Package discover finds repositories by the lists of hosts.
//
// # Purpose
//
// It reads the lists of relays and hosts, page by page: to follow unknown repositories, and after
// missed events to find repositories that changed, moved or were deleted meanwhile. A repository
// that is found is put into the queue of its host.
//
// # Invariants
//
//  1. The progress of a list is a row, its mark. The mark moves in the batch that writes the last
//     change of its page: after a crash a page is either done or requested again.
//  2. A host's list is believed about its own accounts only, and the repository's own host
//     decides: a repository that is found is fetched or checked there. An unknown account has no
//     status and no event until that host was asked.
//  3. The entries of a list are judged by the filter in force. A batch for a former filter is not
//     written.
//  4. A comparison that was requested after missed events ends only when all repositories that its
//     list shows to be outdated or absent are queued. A comparison that is requested again
//     meanwhile starts over.
//  5. If a host's list, read to its end, does not name a stored repository of this host, the
//     repository's host is asked.
//  6. The cost of what a host lists is bounded by the limits in limits.go. Hosts that fail or hang
//     take a bounded part of the places, and the accounts of one host a bounded part of the queues.
//  7. Reading lists is paused while too many repositories are pending. Comparisons are not paused,
//     because they repair.
//  8. A list that names nothing, or much less than before, is repeated before it is believed. A
//     list that repeats itself or does not end is abandoned (package pages).
//
// # Concurrency
//
// Run owns all goroutines: one that starts crawls, one for each crawled source and each list being
// read, one that starts comparisons and one for each of these, one that finds absent repositories,
// one that asks hosts again about unknown accounts, and the pools that describe accounts.
// Everything else may be called from any goroutine. The mutexes of crawlers, crawler, reconciler
// and absences guard the fields next to them; none is held over I/O.
//
// # Files
//
//   - options.go, limits.go, metrics.go: settings, constants, metrics
//   - runner.go: Runner, Run, Wake
//   - source.go: Source; crawlers.go: adding and removing sources; crawler.go: the lists of one
//     source; list.go: one list. Package pages reads its pages
//   - trust.go: how many places unproven and failing hosts may take
//   - finding.go: compares a page with the stored rows; absent.go: repositories that lists do not
//     name
//   - describe.go: collections of unknown accounts; describeretry.go: accounts to be asked about
//     again
//   - reconcile.go: which lists are compared after missed events; pass.go: one of them;
//     comparison.go: Comparison, of all lists on request
package discover
