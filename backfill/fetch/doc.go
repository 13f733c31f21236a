// Package fetch makes one verified copy of a repository.
//
// # Purpose
//
// It asks the host of a repository for the parts that a filter wants, or for the whole, checks
// everything that arrives, and keeps the copy until the caller has stored it. The package uses
// neither the store nor the queue: the Request has the state that a fetch needs from them.
//
// # Invariants
//
//  1. A Copy was read to its end, every block hashed, the commit checked (DID, version, rev,
//     signature) and the tree walked without an error. In a partial copy this applies to all nodes
//     on the way to wanted keys; its wanted records are the same as in a whole copy.
//  2. A commit that is older than the stored commit, or than the commit of an interrupted
//     difference, is rejected.
//  3. Each request is charged to the Host of its Target before it is sent, and the received bytes
//     are reported however the request ends.
//  4. The cost of what a host sends is bounded by limits.go and Options. All copies share one
//     budget each for memory, spools, indexes and zstd windows, and take from it without waiting: a
//     copy that does not fit is spooled, or fails.
//  5. The budget of a copy is released when it is closed, or when Copy returns an error. A spool
//     is an unlinked file, so that a crash leaves none.
//  6. A transfer that receives too little for too long is cancelled. Long transfers hold at most
//     their share of the permits while repositories wait.
//  7. A host that does not serve parts, or breaks them off twice in a row, is asked for whole
//     repositories for an hour. The list of such hosts is bounded, and may be lost.
//
// # Concurrency
//
// A Copier may be used by any number of goroutines. A Request and its Copy belong to one goroutine
// at a time. The package starts no goroutine: the watch of a transfer is a timer, which only
// cancels the request.
//
// # Files
//
//   - options.go, limits.go, metrics.go: settings, constants, metrics
//   - request.go: Request, and the Host that is charged; copier.go: Copier, Copy
//   - session.go: the requests of one copy; transfer.go: the watch over a body; body.go:
//     decompression
//   - sparse.go: only the wanted parts; wholeonly.go: hosts and repositories that are fetched
//     whole
//   - verify.go: commit, signature and tree; file.go: CARs that do not come from hosts
//   - spool.go: budgets, and bodies on disk; errors.go: why there is no copy
package fetch
