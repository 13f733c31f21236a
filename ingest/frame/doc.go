// Package frame decodes messages of com.atproto.sync.subscribeRepos.
//
// # Purpose
//
// It turns one WebSocket message, as it comes from a relay or a PDS, into a Frame, or refuses it.
//
// # Invariants
//
//  1. Bytes from outside never panic, and cost no more than their own length; what is wrong is repo.ErrInvalid.
//  2. A frame whose type or op is unknown is of KindUnknown, with its seq if it has one; fields
//     unknown to us are passed over (event stream spec).
//  3. A Frame refers to the message it was decoded from, which must stay unchanged as long.
//
// # Concurrency
//
// A Frame belongs to one goroutine at a time. No goroutine is started.
//
// # Files
//
//	frame.go   Frame, Decode
//	limits.go  every limit
package frame
