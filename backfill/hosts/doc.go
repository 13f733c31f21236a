// Package hosts keeps the table of hosts, and bounds the requests to each host.
//
// # Purpose
//
// Give permits of hosts to the fetches and queries of package backfill, as package pace decides;
// charge each request to its host; and record what requests show about hosts.
//
// # Invariants
//
//  1. A request is sent only under a permit, and is charged to its host first. A permit is
//     released exactly once. The target of a redirect is charged like the host of a request.
//  2. A request that has to wait for its host for more than two seconds is refused with a
//     BusyError, and one to a banned host with ErrBanned: nothing is sent.
//  3. The table is bounded. Only an idle host is forgotten: no permit of it is held, no request
//     waits for it, it is not parked, its statistics are written, and no repositories are offered
//     for it.
//  4. The table can be lost at any moment: limits and bans are in the rows of hosts and in the
//     options, and all else is statistics.
//  5. The type of an error shows whether the host answered (AnswerError), was not asked
//     (BusyError, ErrBanned), or could not be found (ResolveError), or that the store failed
//     (StoreError).
//
// # Concurrency
//
// Run owns one goroutine, which writes statistics. A Permit belongs to one goroutine;
// everything else may be called from any. Table.mu guards all hosts, the scheduler and the parts of
// permits. It is never held over I/O. The mutex of the dispatcher comes before it: Pick calls take
// under both. Under it the store's mutex of hosts is taken, and no other.
//
// # Files
//
//   - options.go, limits.go, metrics.go: settings, constants, metrics
//   - table.go: Table, the bounded table of hosts and their limits
//   - turn.go: which host is next; permit.go: Permit, and what requests under it show about a host
//   - admit.go, query.go: requests that belong to no repository being fetched; redirect.go: the
//     redirected ones
//   - tally.go: the stored statistics of hosts, and their current state
//   - errors.go: why a request failed, or was not sent; answer.go: the parts of an answer that are
//     read
package hosts
