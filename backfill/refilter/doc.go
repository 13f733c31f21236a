// Package refilter adapts stored repositories to a changed filter.
//
// # Purpose
//
// It passes over all repositories until each holds and shows exactly what the filter in force
// wants: it shows or hides stored records, queues a fetch for missing ones, and forgets
// repositories that are no longer followed.
//
// # Invariants
//
//  1. The cursor of the pass is a row, which the change of the filter writes too. After a crash the
//     pass continues there, and repeating a page changes nothing.
//  2. A pass ends after a round over all rows that left nothing to do, and that began when no fetch
//     chose records by an older filter. If the filter is changed meanwhile, the pass begins anew.
//  3. A repository that is being fetched is left to a later round: its task has a filter of its
//     own.
//  4. A row states how its records deviate from its filter: some are to be swept, or some are
//     missing (lacks).
//  5. Forgetting a repository deletes it record by record, with events, and then its row. An
//     interruption leaves the row torn. Then forgetting is resumed, or the repository is fetched.
//  6. No lock of a row is held over more than one bounded batch, and the repositories that wait for
//     a fetch because of the filter are bounded, since their live commits wait with them.
//
// # Concurrency
//
// Run owns the pass and is one goroutine. Wake and Progress may be called from any. A Forget
// belongs to one goroutine.
//
// # Files
//
//   - options.go, limits.go, metrics.go: options, constants, counters
//   - runner.go: Runner, Run; pass.go: the rounds and pages of a pass
//   - revise.go: the work on one repository; relation.go: how two filters differ
//   - backlog.go: how many repositories wait for a fetch at a time
//   - forget.go: repositories no longer followed; waits.go: batches that wait for the disk together
package refilter
