// Package api serves what the store holds, over HTTP and WebSocket.
//
// # Purpose
//
// The public listener answers queries (XRPC) and streams the event log, by package deliver. The
// private one also has the operator's routes, by package admin, and the dashboard.
//
// # Invariants
//
//  1. The public listener answers from the store. A request makes the daemon contact a host or a
//     directory only to look up names, within the limits of package names. It changes the store
//     only by queueing a copy that does not agree with its commit, once for each rev.
//  2. No endpoint returns records of a hidden account.
//  3. Pages neither skip nor repeat items, whatever is written between two requests: the cursor of
//     a request is the first id of its page, or the last key of the previous page.
//  4. Everything that a client can make large has a limit in limits.go. One client cannot use up
//     connections, streams, query turns or the memory of answers: a quarter is left to other
//     clients.
//  5. No web page can use the private listener: Host must be this server, Origin must be Host, a
//     browser must not state that the request comes from another site, and writes must be JSON by
//     their content type. The forms that begin and end a session, and all writes of a session, must
//     state their Origin. Without the token that is configured, or a session begun with it, only
//     the probes, the login, the logout and the parts of pages are answered. A client that gives
//     wrong tokens has to wait before each further try; the right token and sessions do not wait.
//  6. Secrets appear neither in the log nor in answers, but for the answer that makes one.
//
// # Concurrency
//
// A Server may be used by any goroutine. Serve owns the listeners, with one goroutine each that
// accepts and one that drains, and one that waits for a fatal error. It returns when every request
// and stream ended, or DrainTimeout ran out. Webhooks sends the events of webhooks.
//
// # Files
//
//	server.go  Options, Server, routes      serve.go     listeners, draining
//	errors.go  errors → answers, counts     access.go    token, Host, Origin, CORS
//	xrpc.go    dispatch of queries          collections.go  queries about collections
//	coding.go  compressed answers           limits.go    every limit
//	login.go   the dashboard and its login  frontpage.go  the page of the public listener
//	statuspage.go  the public status page   webhooks.go  webhooks, durable subscriptions
//	tap.go     the routes of package tap    metrics.go
//
// New makes the handlers. Public and Admin have the tables of routes, in server.go.
package api
