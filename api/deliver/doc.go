// Package deliver brings the event log to consumers.
//
// # Purpose
//
// It reads the log once for all consumers at the same position, picks the events that each
// consumer's filter wants, encodes them in the consumer's format, and sends them over a WebSocket.
//
// # Invariants
//
//  1. A stream sends every visible event from its cursor on that its filter wants, in the order of
//     ids, each once: replay and tail are one loop over one reader, without a queue that could
//     overflow.
//  2. A page of events is shared for at most a second after it was read, so hiding an account takes
//     effect within a second.
//  3. An event is encoded at most once per format for all streams that share its page.
//  4. A change of a filter takes effect exactly at the id that the answer names.
//  5. A time as the cursor of Jetstream is exact: the stream begins with the first event at or
//     after it, at the oldest event kept if that is later, or with the next event if all are older.
//  6. A snapshot sends every record that its filter wants before the events after its head, each
//     once over all connections that its tokens resume (store/snapshot.go). Any number of
//     snapshots leaves three quarters of the readers to the log, and any number of streams that
//     replay the log leaves readers to streams at its head.
//  7. The memory of unread pages is bounded for all consumers together. A consumer that reads is
//     never cut off for being behind. A consumer that stops reading is cut off, with the reason.
//  8. Of the messages that consumers send, one of each client is understood at a time, and the
//     error about a message is bounded.
//  9. A durable subscription sends every event that its filter wants until the event is
//     acknowledged or its account hidden, across connections, restarts and crashes, or says which
//     ids the log has lost. An event that was acknowledged before the position on disk is not sent
//     again. An event of an account comes only after all earlier ones have come on the same
//     connection, or are acknowledged. One with a snapshot sends every current record, which is
//     acknowledged like an event, before the events after its head.
//  10. A client of tap gets no message that it refuses and, unless it sends one, no close frame. It
//     is sent no more events ahead than it handles in seconds, so that it reads pongs in time.
//
// # Concurrency
//
// A Delivery may be used by any goroutine. subscriber.run owns two goroutines for each stream: one
// reads from the peer, and only the other writes to the connection. The request's goroutine waits
// for both. Feed.Run has two more: one writes the position, and one waits for the log.
//
// # Files
//
//	delivery.go   Options, Delivery          stream.go   GET /stream, its parameters
//	batch.go      in which form it is sent   filters.go   the budget of filters
//	subscriber.go one open stream            update.go   messages of its consumer
//	protocol.go   what differs by endpoint   jetstream1.go, jetstream2.go  the versions of Jetstream
//	jetstream.go  what these have in common  dictionary.go  the dictionary of version 2
//	page.go       decoded events, shared     cache.go    which pages are shared
//	snapshot.go   records before the log     limits.go, metrics.go
//	consumer.go   the connection of a durable subscription (package durable)
//	acks.go       what its consumer acknowledges
//	feed.go       Feed: what it has to send, for any transport; records.go its snapshot
//	tap.go        GET /channel               tappace.go  how much a client of tap is sent ahead
//
// The formats are in package format, and the frames in package wsframe.
package deliver
