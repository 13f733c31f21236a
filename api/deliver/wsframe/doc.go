// Package wsframe writes frames of WebSocket.
//
// # Purpose
//
// A page of events is kept as the frames that a server sends (RFC 6455, section 5.2: final and
// unmasked), so that any number of streams send the same bytes. The libraries for WebSocket keep
// one message at a time.
//
// # Invariants
//
// Frames that follow each other in memory may be sent with one call.
//
// # Concurrency
//
// All functions are pure.
//
// # Files
//
//	wsframe.go  all of it
package wsframe
