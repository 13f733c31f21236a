// Package intake stores repositories from CARs in files.
//
// # Purpose
//
// It reads the CARs of a directory, a bucket or a tar archive, has package backfill verify and
// store each as if its host had sent it, and reports each repository that is refused.
//
// # Invariants
//
//  1. The account of a CAR is the one that its signed commit names. The name of a file decides only
//     whether it is read, and is shown; no path is made of it.
//  2. A CAR that is refused ends nothing: the others are stored. Only a failure of the store, of
//     the source, or of the directory of identities for many repositories in a row ends a run.
//  3. Each CAR is counted once: as new, updated, not newer or refused.
//  4. The cost of what a source has is bounded by limits.go and the limits of a backfill. Links,
//     pipes and devices are not read.
//  5. A run that ended early is continued by another: what is stored is not newer then.
//  6. The firehose never tells what happened to a repository after its CAR was made. So before the
//     first row is written, a comparison with the lists of all known hosts is requested, which the
//     daemon makes when it starts (backfill.Intake).
//
// # Concurrency
//
// Run owns the goroutines: its workers, and the loops of the store. A Source is used by one
// goroutine at a time. Nothing else may write to the store during Run.
//
// # Files
//
//	loader.go   Options, Loader, Run: the workers
//	result.go   Summary, Refusal: what became of each CAR
//	source.go   Source, Entry, Open: where CARs are
//	files.go    Files: the CARs of a directory or a bucket
//	archive.go  Archive: the CARs of a tar archive
//	limits.go   every limit
package intake
