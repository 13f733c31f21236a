// Package objects keeps objects in a directory or in a bucket.
//
// # Purpose
//
// It gives backups and the archive of the log one place for what they store: a directory, or a
// bucket of any service with the API of S3.
//
// # Invariants
//
//  1. An object is stored as a whole or not at all, and is durable when Put returns.
//  2. Put refuses content that has not the stated size and sum.
//  3. No error has a secret.
//  4. No file outside of a directory is read, listed, written or deleted, even if links lead there,
//     and redirects of a service are not followed.
//  5. Everything that a destination sends has a limit: names, listings, answers, texts in errors,
//     and the time without progress. Only the size of an object is bounded by the caller.
//
// # Concurrency
//
// Every function and method may be called from any goroutine. None owns a goroutine.
//
// # Files
//
//   - destination.go: Destination, sums
//   - directory.go, s3.go: the two kinds; dirlock.go: locks on files of a directory
package objects
