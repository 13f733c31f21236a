// Package backfill turns rows that say "pending" into complete, verified copies of repositories.
//
// # Purpose
//
// Fetch every pending repository from its real host, verify it, store it or the difference to
// what we hold, and give what fails a kind and a time to try again.
//
// # Invariants
//
//  1. The row is the truth: whatever is only in memory here (queues, parked hosts, permits) can be
//     lost at any moment, and a new Runner goes on from the rows.
//  2. Nothing is written of a repository but a verified copy (package fetch), or the difference to it.
//  3. A waiting repository holds no permit. A permit is taken before a DID is marked in flight, and
//     given back on every path, at the latest when its task ends.
//  4. One DID is in flight at most once. An outcome is dropped when the row's attempt is not the one
//     the task began with, or the row is no longer pending.
//  5. Rev, data and commit of a row change only in the batch that completes a copy. A difference cut
//     short by a crash is taken up by the same merge; until then the row is torn, and only a copy completes it.
//  6. Each failure raises the row's retry count, and only a success resets it. A repository that
//     waits because its host is parked has not failed.
//  7. Whatever a host sends costs at most the limits in limits.go, and slows only its repositories.
//  8. Live commits are buffered from before the host is asked until the critical section that ends the
//     task. A copy that is complete leaves them to be drained; any other ending drops them and
//     leaves the highest rev as one that was seen.
//  9. A copy below a rev that was seen is no success: it is asked for again, ever more seldom, and
//     only after lagsMax times the host is believed.
//  10. Records of an account that was hidden are listed anew once when it is shown again, before any change
//     to them.
//  11. No lock of a DID is held over I/O of the network, nor over more work than one bounded batch.
//  12. A task chooses records by the filter in force as its fetch began, and its batches say so in the row.
//  13. A repository that must not be followed is forgotten (package refilter).
//  14. The data of an account is wiped only when the host of a document that was read for this question, or the absence of a
//     document, confirms an announced deletion, or RepoNotFound was answered often and long enough.
//     A relay's own decision stands, whatever the host says (docs/architecture.md, "The status of an
//     account").
//
// # Concurrency
//
// Run owns the goroutines that fetch: one that dispatches, one that requeues due rows, one that
// flips imports when idle, one that applies a changed filter, and one for each task or lookup in
// flight. Everything else may be called from any goroutine. Runner.mu guards queues, lookups and the
// in-flight set; it is never held over I/O, and taken before the mutex of the table of hosts, never
// after it.
//
// States: pending → (task) → synced | draining | resync | gone; resync and gone → (due) → pending.
//
// # Files
//
//   - options.go, limits.go, metrics.go: what can be set, what cannot, what is counted
//   - runner.go: Runner, Run, Wake
//   - dispatch.go: starts tasks as package hosts gives permits; queue.go: what waits for one host;
//     standing.go: changes of a host
//   - resolve.go: rows whose host is unknown find it
//   - task.go: one repository, step by step; window.go: whose live commits are buffered meanwhile
//   - recheck.go: whether a transfer is needed; copy.go: asks package fetch for a copy
//   - diff.go: the merge with what we hold; complete.go, outcome.go: what a task writes at its end
//   - forget.go: tasks of repositories that package refilter forgets; signalmiss.go: accounts that
//     showed a signal, but had no record of it
//   - schedule.go: the one switch from failure to kind, parking and delay; errors.go: failures
//   - retry.go: what is due becomes pending
package backfill
