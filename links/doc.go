// Package links finds what records link to.
//
// # Purpose
//
// It finds the links in a record: every text that is an at-uri, a DID or another absolute URI, with
// the path at which the text stands. It brings targets to one form, so that equal targets are equal
// strings.
//
// # Invariants
//
//  1. Bytes from outside never panic. Time is proportional to the length of a record; memory, to
//     its length and to linksMax times pathBytesMax.
//  2. The links of a record depend on its bytes only. They stand in the order of the record.
//  3. Targets are ASCII and in their normal form: Normalise returns them unchanged. So a query for
//     a normalised subject finds every text that means the same.
//  4. A record with a JSON form has links, or none because it exceeds a limit.
//
// # Concurrency
//
// Functions are pure. A Finder is used by one goroutine at a time.
//
// # Files
//
//	extract.go  Link, Extract, Finder, limits of records
//	target.go   Normalise, at-uris, DIDs
//	uri.go      other URIs (RFC 3986)
package links
