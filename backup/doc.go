// Package backup copies a store to a directory or a bucket, and back.
//
// # Purpose
//
// It brings a checkpoint of the store to a destination, so that only files are stored which the
// destination lacks, and writes a backup into an empty directory. It knows neither the daemon nor
// HTTP. A destination is that of package objects.
//
// A destination has three kinds of objects:
//
//	tables/SUM                       a file of a store, under the SHA-256 of its content
//	generations/TIME-EPOCH/manifest  every file of one backup: name, size and sum
//	generations/TIME-EPOCH/complete  the marker: the sum of the manifest, and a summary
//	locks/ID                         a backup in progress
//
// # Invariants
//
//  1. A generation exists if its marker is whole. The marker is written last: then every table that
//     the manifest names is durable and listed with its size, and so is the manifest.
//  2. A table is never deleted that a generation names, nor one that a backup in progress counts
//     on: tables are deleted only by a backup, and one backup at a time uses a destination. A
//     marker is deleted before the rest of its generation.
//  3. What is stored and what is restored has the sum that it is named by, or the operation fails.
//     No content is trusted for its name or its size. The one thing that is believed without being
//     read is that a table of the same log, number, size and time of writing is unchanged.
//  4. A directory that is being restored cannot be opened as a store, and one that was restored
//     gets a new epoch (package store).
//  5. A file name in a manifest cannot lead out of the directory, and everything that a destination
//     states has a limit (manifest.go). Objects with other names than backups write are neither
//     read nor deleted.
//  6. No error and no log line has a secret.
//
// # Concurrency
//
// Every function may be called from any goroutine. Run, Verify and Restore own the goroutines that
// they start, Run holds a lock (package objects/lease); Lender.Borrow owns one.
//
// # Files
//
//   - manifest.go: manifests, markers, generations
//   - backup.go: Run; prune.go: what is deleted afterwards
//   - restore.go: Restore; verify.go: Verify
//   - maker.go: Maker, the backups of a daemon; lender.go: Lender; metrics.go
package backup
