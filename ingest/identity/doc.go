// Package identity turns a DID into what an indexer needs of its document: where the
// repository is hosted and which key signs it.
//
// # Purpose
//
// Resolve DIDs against PLC directories (and did:web hosts), keep the answers with their parsed
// keys for a while, and own the policy that says which addresses outsiders may make us call.
//
// # Invariants
//
//  1. An Identity names exactly the DID that was asked for, with a PDS origin and a parsed key;
//     a document that lacks one of them is an error, never a half-filled Identity.
//  2. ErrNotFound is returned only on an answer: every directory said 404, or one said 410. A
//     directory that could not be asked makes the failure transient.
//  3. Unless AllowPrivate is set, no connection reaches an address that is not public, or that an interface of this
//     machine has. The check
//     runs on the resolved address when the socket is made, so names, redirects and
//     rebinding cannot evade it. No proxy is ever taken from the environment.
//  4. After Purge(did) returns, no Resolve that starts later sees a document that was asked for before.
//  5. Answers are bounded (BodyMax), lookups are bounded in time (Timeout), redirects are few and
//     never leave https; the cache never exceeds CacheSize entries.
//  6. Handles are declared, not verified: they are for display only.
//  7. What Remember was told is shown by Cached and never by Resolve, and gives way to any answer. So a
//     caller who tells of an old row just after a Purge cannot break invariant 4; what he gets back
//     from Cached is what he held in his hand.
//  8. KeysAt takes the word of the PLC directory, as Resolve does; operations that were nullified count for nothing. A key
//     that was rotated out is good for no moment that is minutes later.
//
// # Concurrency
//
// A Directory is safe for concurrent use and starts no goroutine. Its lock is never held over I/O: Cached, Remember and
// Purge do not wait for lookups. Lookups of one DID that overlap share
// one request, made by the first caller with its context; when that caller gives up, another
// one takes over.
//
// # Files
//
//   - directory.go: Options, Directory, Resolve, Cached, Remember, Purge, coalescing
//   - document.go: DID document → Identity, ParseKey
//   - origin.go: ParseOrigin, HostOf: one spelling per host
//   - audit.go: KeysAt, from the audit log of a did:plc
//   - fetch.go: did:plc and did:web over HTTP, fallback between PLC directories
//   - plc.go: which PLC directory to ask next
//   - cache.go: the bounded cache with expiry
//   - netpolicy.go: NewTransport, Dialer and the addresses it refuses, CheckRedirect
//   - errors.go, metrics.go
package identity
