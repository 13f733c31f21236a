// Package cars writes whole repositories into CAR files.
//
// # Purpose
//
// It exports the repositories of a store that does not change, one CAR each, to a destination of
// package objects or into one tar archive, with a manifest that bulk loaders can read:
//
//	repos/3f/did:plc:....car   the CARs; the directory is of the hash of the DID
//	manifest-00001.ndjson      a line for each repository: did, rev, path, records, bytes and sha256
//	progress.json              how far an export is; deleted at the end
//	manifest.json              the marker: head, counts, and each part of the manifest with its sum
//
// # Invariants
//
//  1. A CAR is stored only if the tree of its records has the root that its commit signs. A
//     repository of which the store lacks records is left out, and the manifest says why.
//  2. No repository of a hidden account is exported.
//  3. An export exists if its manifest.json does. It is written last, when all else is durable. An
//     archive has its name only when it is complete.
//  4. An export to a destination that was interrupted goes on behind the last part of its manifest.
//     Each repository is in the manifest once.
//  5. The memory of a run is bounded by its workers. Large CARs are put together on disk.
//
// # Concurrency
//
// Run owns its workers, and they have ended when it returns. One run at a time uses a destination.
//
// # Files
//
//	run.go      Options, Run: pages of repositories    manifest.go  the manifest, progress
//	spool.go    a CAR until its size is known          archive.go   Archive: a tar archive
//	limits.go   every limit
package cars
