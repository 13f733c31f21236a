// Package backfill turns pending rows into complete, verified copies of repositories.
//
// # Purpose
//
// It fetches every pending repository from its own host, verifies it, stores it or its difference
// to the stored copy, and records for each failure its kind and the time of the next attempt.
//
// # Invariants
//
//  1. The row is the truth: state that is only in memory (queues, parked hosts, permits) can be
//     lost at any moment, and a new Runner continues from the rows.
//  2. Only a verified copy of a repository (package fetch), or the difference to it, is written.
//  3. A waiting repository holds no permit. A permit is acquired before a DID is marked in flight,
//     and released on every path, at the latest when its task ends.
//  4. One DID is in flight at most once. An outcome is dropped if the row's attempt is not the one
//     that the task began with, or the row is no longer pending.
//  5. Rev, data and commit of a row change only in the batch that completes a copy. A difference
//     that a crash interrupted is continued by the same merge; until then the row is torn, and
//     only a copy completes it.
//  6. Each failure raises the row's retry count, and only a success resets it. A repository that
//     waits because its host is parked has not failed.
//  7. The cost of what a host sends is bounded by the limits in limits.go, and it slows only the
//     repositories of this host.
//  8. Live commits are buffered from before the host is asked until the critical section that ends
//     the task. After a complete copy they are drained. Any other ending drops them, and the row
//     keeps their highest rev as announced.
//  9. A copy below an announced rev is no success: the host is asked again with growing delays,
//     and is believed after lagsMax times.
//  10. The records of a hidden account are listed anew once when it becomes visible again, before
//     any change to them.
//  11. No lock of a DID is held over network I/O, nor over more work than one bounded batch.
//  12. A task selects records by the filter in force when its fetch began, and its batches record
//     that filter in the row.
//  13. A repository that must not be followed is forgotten (package refilter).
//  14. The data of an account is wiped only if an announced deletion is confirmed, or if
//     RepoNotFound was answered often and long enough. A deletion is confirmed by the host in a
//     document that was read for this purpose, or by the absence of a document. A relay's own
//     decision stands, whatever the host reports (docs/architecture.md, "The status of an
//     account").
//
// # Concurrency
//
// Run owns the goroutines: one that dispatches, one that requeues due rows, one that flips imports
// when idle, one that writes statistics of hosts, one that applies a changed filter, and one for
// each task or lookup in flight. All other methods may be called from any goroutine. dispatcher.mu
// guards queues, lookups and the DIDs in flight. It is never held over I/O, and is locked before
// the mutex of the table of hosts, never after it.
//
// States, with what leads to them (store/transition.go has the rules):
//
//	unknown, idle, gone → pending: Track in api/admin/change.go, discover/finding.go, ingest/discover.go
//	pending → synced, draining, resync, gone: a task
//	draining → synced: ingest/drain.go, when the buffered commits are applied
//	synced, draining → pending, resync: a reason to ask the host again, now or later
//	resync, gone → pending: retry.go, when the next attempt is due; at once for an #account that is
//	    active, a commit of an account that should be gone, a listing, or POST /repos/resync
//	resync → synced: a commit that follows the copy (ingest/commit.go)
//	any → gone: the account is not active
//	any → idle: Untrack; gone stays gone if the account is not active
//
// # Files
//
//   - options.go, limits.go, metrics.go: settings, constants, metrics
//   - runner.go: Runner, Run, Wake
//   - dispatch.go: the dispatcher starts tasks as package hosts gives permits; claim.go: the
//     permits of a task; queue.go: the repositories that wait for hosts; flight.go: the DIDs in
//     flight
//   - resolve.go: the lookup of unknown hosts; document.go: the DID document that a task read
//   - task.go: one repository, step by step; window.go: its row, and the buffer of its live commits
//   - plan.go: what an attempt asks the host, in order; inquiry.go: the requests to the host
//   - landing.go: the batch that completes a copy; diff.go: the merge with the stored rows
//   - outcome.go: the batch that ends a task without a copy; decision.go: when an account that is
//     unavailable is hidden or wiped
//   - forget.go: tasks of repositories that package refilter forgets; signalmiss.go: accounts with
//     a signal, but without a record of it
//   - schedule.go: the one switch from failure to kind, pause and delay
//   - retry.go: due rows become pending
//   - intake.go: repositories whose CARs do not come from hosts, stored while no Runner runs
package backfill
