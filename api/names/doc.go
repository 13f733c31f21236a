// Package names looks up the handles and DIDs that clients of the public listener name.
//
// # Purpose
//
// A handle is looked up as the protocol demands: the TXT record of _atproto.HANDLE, and
// https://HANDLE/.well-known/atproto-did if DNS has none. Whether the account claims the handle is
// the caller's question, as the store may know its document. A DID is looked up in the directory.
//
// # Invariants
//
//  1. A name from outside has no effect but a bounded number of short requests: of one client, of
//     one site (the last two labels of a name) and in all, by rate and at a time (limits.go).
//  2. Names that the public network cannot have are not looked up: reserved and private top-level
//     domains, and names without a dot. Neither are they by a redirect or a did:web. Search domains of
//     the machine are not tried for handles.
//  3. Unless AllowPrivate is set, no connection reaches an address that is not public, by redirect
//     neither, nor a port other than 443.
//  4. Bodies, redirects and times of requests are bounded, and so is the cache.
//  5. ErrNotFound is returned only if DNS and the host have answered, or can never have the name.
//
// # Concurrency
//
// A Resolver may be used by any goroutine, and starts none. Concurrent lookups of one handle share
// one request.
//
// # Files
//
//	resolver.go  Options, Resolver: Handle and Identity, the cache
//	handle.go    one lookup of a handle, by DNS and by HTTP
//	reserved.go  names that are not looked up
//	rate.go      limits by client and by site
//	limits.go    every limit
//	metrics.go
package names
