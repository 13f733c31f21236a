// Package format encodes events of the log as messages.
//
// # Purpose
//
// It has all formats that consumers read: Cistern's own, and formats of other servers, whose
// clients follow Cistern unchanged. An event comes in, and bytes go out: nothing is read or sent.
//
// # Invariants
//
//  1. A message is valid JSON in UTF-8, whatever the event has in it.
//  2. A format without a field for what an event has in it leaves out the whole event, and says so.
//  3. The client of tap takes every message in its format.
//
// # Concurrency
//
// A Format may be used by any goroutine. An Encoder has one user at a time.
//
// # Files
//
//	format.go   Format, Encoder, Result       set.go        Set: the formats of a server
//	packing.go  compression                   jetstream.go  both versions of Jetstream
//	cistern.go  Cistern's own                 record.go     records of a snapshot
//	token.go    places in snapshots           tap.go        that of tap
//	strict.go   what strict clients take
package format
