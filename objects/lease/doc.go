// Package lease gives one user at a time a destination of package objects.
//
// # Purpose
//
// A backup or an export must not meet another one at its destination, which may be a bucket that
// several machines write to. With holds a lock there while it runs.
//
// # Invariants
//
//  1. Of two users whose locks last, at most one runs at a time. A lock is an object of its own: a
//     user that lists no other lock after its own was written is alone, since of any two, one lists
//     after both have written. This needs no request with a condition, which not every service with
//     the API of S3 has.
//  2. The age of another lock is measured by the clock of the destination, against the own lock.
//  3. A user that could not renew its lock for half of its time learns of it before another one may
//     take the lock for expired.
//  4. In a directory a file is locked by the operating system instead (Directory): the lock of a
//     killed user is gone at once.
//
// # Concurrency
//
// With owns the goroutine that renews the lock. Every function may be called from any goroutine.
//
// # Files
//
//	lease.go  Options, With   directory.go  Alone: the lock on a directory, or With
package lease
