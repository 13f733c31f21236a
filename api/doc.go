// Package api serves what the store holds, over HTTP and WebSocket.
//
// # Purpose
//
// The public listener answers queries (XRPC) and streams the event log; the private one changes
// what is followed, and tells the operator how things stand.
//
// # Invariants
//
//  1. The public listener changes nothing. What it is asked is answered from the store alone: no
//     request makes the daemon call anybody.
//  2. A hidden account's records leave through no endpoint. A page of events that subscribers share
//     is shared for at most a second after it was read, so hiding takes effect within that.
//  3. A stream gives every visible event from its cursor on, in the order of ids, each once:
//     replay and tail are one loop over one reader, with no queue to overflow in between.
//  4. A page boundary is never lost: the cursor a client passes is the first id it gets (or the
//     key after which its list goes on), whatever was written meanwhile.
//  5. A write that was answered with 2xx is durable, and each of its rows was changed under its lock.
//  6. Everything an outsider can make large has a limit in limits.go, and one client cannot use up
//     connections, streams, query turns or the memory of answers: a quarter is left to others.
//  7. No web page can drive the private listener: Host must be ours, Origin must be Host, a
//     browser must not say that another site asks, and writes must be JSON by their content type.
//     With a token, nothing but the probes answers without it.
//  8. Secrets are neither logged nor answered.
//
// # Concurrency
//
// A Server may be used by any goroutine. Serve owns the listeners and returns when every request and
// every stream ended, or the time for that ran out. A stream is the request's goroutine and one that
// listens to the peer; only the former writes to the connection.
//
// # Files
//
//	server.go  Options, Server, routes      serve.go     listeners, draining
//	conns.go   connections of a listener    clients.go   what one client may take
//	errors.go  error class → HTTP status    access.go    token, Host, Origin, CORS
//	xrpc.go    dispatch of queries          record.go    getRecord, listRecords
//	repo.go    describeRepo, the gate       sync.go      com.atproto.sync
//	stream.go  /stream                      page.go      events encoded once for all
//	frame.go   one event as a frame         text.go      JSON strings
//	repos.go   GET /repos                   change.go    PUT, DELETE, resync
//	firehose.go sources and cursors         ingestion.go the switches
//	filter.go  GET and PATCH /filter        stats.go     /stats, probes
//	dids.go    request bodies               query.go     parameters
//	limits.go  every limit                  metrics.go
package api
