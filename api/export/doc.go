// Package export answers with repositories, and with proofs of their records, as CARs.
//
// # Purpose
//
// The store has records, not trees. This package rebuilds the tree of a repository from its ordered
// record rows, in bounded memory, and sends the part that a client asks for. It also sends records
// of many repositories as one file, which package dump writes, and many repositories as one archive
// of CARs.
//
// # Invariants
//
//  1. A CAR begins only if the tree of all record rows has the root that the commit signs. Every
//     block hashes to the CID that it stands under.
//  2. Blocks stand in the order in which a reader needs them: the commit, then the tree in
//     pre-order, each record where its entry stands.
//  3. A part has all records of its range, and every node that may lead to others: a verifier finds
//     the range complete.
//  4. A CAR has no record that the filter of the repository does not want.
//  5. Memory does not grow with the repository: an outline has at most outlineBytesMax, and a walk
//     holds two outlines. Chosen keys can make it hold more, but the n-th outline costs an
//     attacker 4^n hashes for each key.
//  6. A copy that does not agree with its commit is put into the queue once for each rev.
//  7. An export ends: its client has readTimeMax at most. It breaks off at the next piece once its
//     account is hidden or wiped.
//  8. A file of many records, and an archive between its large CARs, holds neither a view of the
//     store nor a processor while its client reads. What ends early has no end that a client could
//     take for one.
//
// # Concurrency
//
// Exports, Records and Exporter may be used by any goroutine. An Export and a store.RepoView belong
// to one goroutine at a time.
//
// # Files
//
//	exports.go   Exports, the queries   stream.go  pieces and deadlines
//	exporter.go  Exporter, Export       part.go   ranges of keys
//	outline.go   upper part of a tree   walk.go   pre-order over outlines and rows
//	cache.go     outlines, mismatches   car.go    the format
//	blocks.go    blocks by their CIDs   limits.go  every limit; metrics.go
//	records.go   GET /export            archive.go  its archives of CARs
package export
