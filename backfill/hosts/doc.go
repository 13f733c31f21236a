// Package hosts keeps the table of hosts, and bounds what each host is asked.
//
// # Purpose
//
// Give permits of hosts to the fetches and queries of package backfill, as package pace decides;
// charge each request to its host; and keep what requests show about hosts.
//
// # Invariants
//
//  1. A request is sent under a permit only, and charged to its host before. A permit is given back
//     exactly once, and a host that is redirected to is charged like one that is asked.
//  2. A request that has to wait for its host for more than two seconds is refused with a
//     BusyError, and one to a banned host with ErrBanned: nothing is sent.
//  3. The table is bounded. Only an idle host is forgotten: no permit of it is held, no request
//     waits for it, it is not parked, nothing learnt of it is unwritten, and no repositories are
//     offered for it.
//  4. The table can be lost at any moment: limits and bans are in the rows of hosts and in the
//     options, and what was learnt is statistics.
//  5. An error says whether the host answered (AnswerError), was not asked (BusyError,
//     ErrBanned), or could not be found (ResolveError).
//
// # Concurrency
//
// Run owns one goroutine, which writes what is learnt. A Permit belongs to one goroutine;
// everything else may be called from any. Table.mu guards all hosts, the scheduler and the parts of
// permits. It is never held over I/O. The mutex of the dispatcher comes before it: Pick calls take
// under both. Under it the store's mutex of hosts is taken, and no other.
//
// # Files
//
//   - options.go, limits.go, metrics.go: what can be set, what cannot, what is counted
//   - table.go: Table, the bounded table of hosts and their limits
//   - turn.go: which host is next; permit.go: Permit, and what requests under it show about a host
//   - admit.go, query.go: requests that belong to no repository being fetched; redirect.go: the
//     redirected ones
//   - tally.go: what is written of hosts, and their current state
//   - errors.go: why a request failed, or was not sent; answer.go: what is read of an answer
package hosts
