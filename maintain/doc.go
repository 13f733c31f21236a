// Package maintain coordinates the maintenance of a daemon.
//
// # Purpose
//
// It runs operations, such as pruning, checks and backups: on request, by a schedule, and because
// another operation needs them. It decides which may run at the same time, and which go first while
// the disk is short. It knows nothing of what an operation does.
//
// The row of an operation says when it runs next, or what Operation.Last returns.
//
// A run of an operation is its work from the beginning until it completes, fails or is cancelled.
// The Coordinator may interrupt a run in between, and continues it later as the same run.
//
// # Invariants
//
//  1. Two operations run at the same time only if the table (Options.Together) has the pair.
//  2. A run has the observers whose requests came before it began. A later request waits for the
//     next run, which all later requests share. So Await returns the result of a run that began
//     after the call, and returns it when that run has ended and its row is saved, also if the row
//     has to wait for the end of a pause.
//  3. A waiter that leaves takes back only its own request. A run is cancelled only when no
//     observer is left, or by Cancel. Only waiters can leave: a request by Schedule, or of the
//     schedule, stays.
//  4. An operation that needs another one first is interrupted, keeps its observers, and continues
//     after a run of the other one that began after that. If that run fails, the operation fails
//     with a NeedError. Operations never wait for each other in a circle, and one run needs others
//     at most needsMax times.
//  5. While operations are needed that run alone, only these and what they need begin, and
//     operations that free space while the disk is short.
//  6. While the disk is short, operations that free space begin before all others, what consumes
//     space is interrupted and does not begin, and so is what prevents an operation from freeing.
//  7. Pending operations begin in the order of their first requests. An operation that must wait
//     for a running one delays later ones that exclude it, so none is overtaken for ever.
//  8. While the coordinator is paused nothing begins, and when Pause has returned nothing runs and
//     nothing is saved until Resume, or until Run is told to end: then all rows are saved. No
//     request is taken after that.
//  9. A request that was saved survives a crash, and an operation that ran at the crash is pending
//     again.
//
// # Concurrency
//
// All methods of Coordinator may be called from any goroutine, except that an operation must not
// call Await or Pause. Run owns all goroutines: one for each operation that runs. No lock is held
// while an operation runs or a row is saved. The machine is a plain value that the mutex of the
// Coordinator guards: time is an argument, and nothing in it waits.
//
// # Files
//
//   - operation.go: Operation, Options; table.go: pairs that may run together; hours.go: Hours
//   - machine.go: the state machine: tasks, runs, requests, results; choice.go: what begins and
//     what stops; row.go: what survives a restart
//   - coordinator.go: Coordinator, which runs what the machine decides
//   - status.go: Status, View; progress.go: Progress; metrics.go: metrics;
//     errors.go: NeedError and other errors
package maintain
