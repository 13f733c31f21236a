// Package frame decodes messages of com.atproto.sync.subscribeRepos.
//
// # Purpose
//
// It turns one WebSocket message, as it comes from a relay or a PDS, into a Frame, or refuses it.
//
// # Invariants
//
//  1. No input panics, or takes memory out of proportion to its length. Invalid input is
//     repo.ErrInvalid.
//  2. A frame whose type or op is unknown is of KindUnknown, with its seq if it has one. Unknown
//     fields are skipped (event stream spec).
//  3. A Frame refers to the message that it was decoded from. The message must stay unchanged while
//     the Frame is in use.
//
// # Concurrency
//
// A Frame belongs to one goroutine at a time. No goroutine is started.
//
// # Files
//
//	frame.go   Frame, Decode      body.go    the fields of each kind
//	cbor.go    values             limits.go  every limit
package frame
