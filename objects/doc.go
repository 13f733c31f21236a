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
//
// # Concurrency
//
// Every function and method may be called from any goroutine. None owns a goroutine.
//
// # Files
//
//   - destination.go: Destination, sums
//   - directory.go, s3.go: the two kinds
package objects
