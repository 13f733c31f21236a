// Package wire reads and writes the parts that all requests and answers have in common.
//
// # Purpose
//
// It reads bodies and parameters, names refusals, checks DIDs, writes JSON answers and DID
// documents, and appends text and records as JSON.
//
// # Invariants
//
//  1. The part of a request that an error repeats is bounded and quoted.
//  2. Every string and record becomes valid JSON, or the reason why it has no JSON form.
//
// # Concurrency
//
// Everything may be called by any goroutine.
//
// # Files
//
//	answer.go    refusals, JSON answers
//	body.go      bodies of requests
//	did.go       what is a DID
//	document.go  DID documents
//	list.go      lists: answers, bodies of DIDs
//	query.go     parameters, next pages
//	version.go   ETag, Atproto-Repo-Rev
//	text.go      strings and records as JSON
package wire
