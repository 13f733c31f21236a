// Package hosts keeps the table of hosts, and bounds the requests to each host.
//
// # Purpose
//
// It gives permits of hosts to the fetches and queries of package backfill, as package pace
// decides; charges each request to its host; and records what requests show about hosts.
//
// # Invariants
//
//  1. A request is sent only under a permit, and is charged to its host first. A permit is released
//     exactly once. A redirected request is charged to its target too.
//  2. A request that has to wait for its host for more than two seconds is refused with a
//     BusyError, and one to a banned host with ErrBanned: nothing is sent.
//  3. The table is bounded. Only an idle host is evicted: a host without permits in use, waiting
//     requests, a parking, unwritten statistics or offered repositories.
//  4. The table can be lost at any moment: limits and bans are in the rows of hosts and in the
//     options, and the rest is statistics.
//  5. The type of an error shows whether the host answered (AnswerError), was not asked
//     (BusyError, ErrBanned), or could not be found (ResolveError), or that the store failed
//     (StoreError).
//
// # Concurrency
//
// Run owns one goroutine, which writes statistics. A Permit belongs to one goroutine; everything
// else may be called from any. Table.mu guards all hosts, the scheduler and the parts of permits.
// It is never held over I/O. The mutex of the dispatcher is locked before it: Pick calls take with
// both held. While it is held, only the store's mutex of hosts is locked.
//
// # Files
//
//   - options.go, limits.go, metrics.go: settings, constants, metrics
//   - table.go: Table, the bounded table of hosts and their limits
//   - turn.go: which host is next; permit.go: Permit, and what requests under it show about a host
//   - body.go: counts what is read
//   - admit.go, query.go: requests that fetch no repository; redirect.go: redirected requests
//   - tally.go: the stored statistics of hosts, and their current state
//   - errors.go: why a request failed, or was not sent; answer.go: how answers are read
package hosts
