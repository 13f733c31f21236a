// Package names looks up handles and DIDs for clients of the public listener.
//
// # Purpose
//
// A handle is looked up as the protocol demands: the TXT record of _atproto.HANDLE, and
// https://HANDLE/.well-known/atproto-did if DNS does not lead to a DID. The caller checks that the
// account claims the handle, because the store may have its document. A DID is looked up in the
// directory.
//
// # Invariants
//
//  1. A name from outside causes only short requests. Their rate is bounded for each client, for
//     each site (the last two labels of a name) and in all; so is their number at a time, for each
//     client and in all (limits.go).
//  2. Names that the public network cannot have are not looked up: reserved and private top-level
//     domains, and names without a dot, also if a redirect or a did:web leads to them. Search
//     domains of the machine are not tried for handles.
//  3. Unless AllowPrivate is set, connections reach only public addresses, and only port 443, also
//     after a redirect.
//  4. Bodies, redirects and times of requests are bounded, and so is the cache.
//  5. ErrNotFound means a definite answer of DNS or the host, or a name that neither can ever have.
//     A failed lookup is another error.
//
// # Concurrency
//
// A Resolver may be used by any goroutine. It starts no goroutine. Concurrent lookups of one handle
// share one request.
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
