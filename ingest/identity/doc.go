// Package identity resolves a DID to the host of its repository and the key that signs it.
//
// # Purpose
//
// It resolves DIDs at PLC directories and did:web hosts, and caches the answers with their parsed
// keys. It also decides which addresses a name from outside may resolve to.
//
// # Invariants
//
//  1. An Identity names exactly the DID that was asked for, with a PDS origin and a parsed key; a
//     document that lacks one of them is an error, never a half-filled Identity.
//  2. ErrNotFound is returned only on an answer: every directory answered 404, or one 410. If a
//     directory does not answer, or with an HTML page, the failure is transient.
//  3. Unless AllowPrivate is set, no connection reaches an address that is not public, or that an
//     interface of this machine has. The check runs on the resolved address when the socket is
//     made, so names, redirects and rebinding cannot evade it. No proxy is taken from the
//     environment.
//  4. After Purge(did) returns, no Resolve that starts later returns a document requested earlier.
//  5. Answers are bounded (BodyMax), lookups are bounded in time (Timeout), redirects are few and
//     never leave https; the cache never exceeds CacheSize entries.
//  6. Handles are declared, not verified: they are for display only.
//  7. An identity that was stored by Remember is returned by Cached, never by Resolve, and any
//     answer replaces it. So calling Remember with an old row just after Purge cannot break
//     invariant 4.
//  8. KeysAt believes the PLC directory, as Resolve does, and ignores nullified operations. A key
//     that was rotated out is never valid for a time that is minutes later.
//  9. The fault of a PLC directory begins once at least a quarter of its requests of the last 5
//     minutes, and at least 4 of them, failed: they got no answer about a DID. It ends once less
//     than a tenth of the requests of the last 5 minutes failed, at every count for 2 minutes.
//     Requests that the caller stopped do not count. Requests that a 429 refused count only in
//     30-second intervals in which no request was answered. A directory with a failed request in
//     the last 5 minutes is asked every ProbeEvery, so that the fault begins and ends without
//     lookups too.
//
// # Concurrency
//
// A Directory is safe for concurrent use and starts no goroutine: Run uses that of its caller. Its
// lock is never held over I/O: Cached, Remember and Purge do not wait for lookups. Concurrent
// lookups of one DID share one request, a flight. The first caller makes it with its own context;
// if that caller gives up, a waiting caller repeats it.
//
// # Files
//
//   - directory.go: Options, Directory, Resolve, Cached, Remember, Purge, coalescing
//   - document.go: DID document → Identity, ParseKey
//   - origin.go: ParseOrigin, HostOf: one spelling per host
//   - audit.go: KeysAt, from the audit log of a did:plc
//   - fetch.go: did:plc and did:web over HTTP, fallback between PLC directories
//   - plc.go: which PLC directory to ask next
//   - fault.go: Fault, and when one begins and ends; tally.go: the requests of the last minutes
//   - probe.go: Run, which asks directories that fail
//   - cache.go: the bounded cache with expiry
//   - netpolicy.go: NewTransport, Dialer and the addresses it refuses, CheckRedirect
//   - errors.go, metrics.go
package identity
