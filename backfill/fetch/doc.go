// Package fetch makes one verified copy of a repository.
//
// # Purpose
//
// Ask the host of a repository for what a filter wants of it, by parts or as a whole, check all that
// comes, and hold it until the caller has stored it. The package knows neither the store nor the
// queue: what it needs of them comes with the Request.
//
// # Invariants
//
//  1. A Copy was read to its end, every block hashed, the commit checked (DID, version, rev,
//     signature) and the tree walked without an error. Of a copy of parts that holds for all nodes on
//     the way to wanted keys; its wanted records are those that the whole would give.
//  2. No commit is taken that is older than what is held, or than a difference that was begun.
//  3. Each request is charged to the Host of its Target before it is sent, and the bytes that came
//     are reported, however it ended.
//  4. Whatever a host sends costs at most the limits in limits.go and Options. All copies together
//     share one budget each for memory, spools, indexes and zstd windows, and take from it without
//     waiting: what does not fit fails, or is spooled.
//  5. What a copy took is given back when it is closed, or when Copy returns an error. A spool is a
//     file without a name, so that a crash leaves none.
//  6. A host that sends too little for too long is given up, and a transfer that takes long keeps no
//     other repository from a permit beyond its share.
//  7. A host that sends no parts, or breaks them off twice in a row, is asked for the whole for an
//     hour. The memory of that is bounded, and may be lost.
//
// # Concurrency
//
// A Copier may be used by any number of goroutines. A Request and the Copy that comes of it belong to
// one at a time. The package starts no goroutine: the watch of a transfer is a timer, which only
// cancels the request.
//
// # Files
//
//   - options.go, limits.go, metrics.go: what can be set, what cannot, what is counted
//   - request.go: Request, and the Host that is charged; copier.go: Copier, Copy
//   - session.go: the requests of one copy; transfer.go: the watch over a body; body.go: decompression
//   - sparse.go: only the wanted parts; wholeonly.go: hosts and repositories that are fetched whole
//   - verify.go: commit, signature and tree
//   - spool.go: budgets, and bodies on disk; errors.go: why there is no copy
package fetch
