// Package firehose reads firehoses: from the sockets of relays and PDSes to decoded events.
//
// # Purpose
//
// It reads com.atproto.sync.subscribeRepos of any number of sources, hands every event to its
// caller in the order of its source, and keeps a cursor of each source that covers only what the
// caller has finished.
//
// # Invariants
//
//  1. The cursor of a source is the low watermark: every event up to it was skipped, or is in an
//     earlier batch or the batch that writes the cursor. It moves past skipped events too, and
//     never moves backwards, unless it is dropped: for a new count (gap.go), for a message that
//     cannot be read (2), or by ForgetCursor.
//  2. A malformed message is counted and skipped; if it is a #commit or #sync whose DID and rev are
//     readable, it becomes an event that is Broken. No message causes endless reconnects at one
//     cursor: if the connection breaks within the same message three times, over two minutes or
//     more, the source continues at its newest message.
//  3. Messages missed between two connections are found whether the host announces them or not, by
//     the signs that gap.go lists, and recovered by comparing the source's listing. The comparison
//     is requested, or recorded as owed, durably before the cursor moves past the gap.
//  4. The messages that are read and not released take no more than Options.QueueBytes.
//  5. Events are not verified here. What they claim about the socket, their size and their seq, is
//     bounded; the rest is the caller's to check.
//
// # Concurrency
//
// Run owns every goroutine: one that starts sources, and for each source a reader and one that
// pings; one that saves cursors and requests owed comparisons. All other methods may be called from
// any goroutine. An Event belongs to one goroutine at a time. tracker.mu, Source.mu and Sources.mu
// are never held over I/O; Sources.mu is taken before Source.mu.
//
// # Files
//
//	sources.go  Sources, the set       options.go  Options          limits.go    limits of sockets
//	source.go   Source, one of them    socket.go   its connection   watermark.go its cursor
//	gap.go      missed messages        event.go    Event, memory    address.go   addresses
//	direct.go   hosts followed directly            metrics.go       metrics of sources
//	feed.go     Feed, for tests
package firehose
