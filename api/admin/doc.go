// Package admin answers the operator's routes of the private listener.
//
// # Purpose
//
// It shows the operator the state of the daemon, and changes what is followed, kept and run.
// Package api decides which requests reach it, and answers its errors.
//
// # Invariants
//
//  1. A write answered with 2xx is durable, and each of its rows was changed under its lock.
//  2. A GET changes nothing. By the kind of any other route, package api refuses requests of web
//     pages, and, for Write and Lend, requests while the store is frozen.
//  3. A change of settings (filter, switches, phase, limits of a host) is made as a whole. If any
//     of its values is invalid, nothing is changed.
//  4. Pages neither skip nor repeat items, whatever is written between two requests: the cursor of
//     a request is the last key of the previous page.
//  5. Everything that a client can make large has a limit in limits.go.
//  6. An overview and the public status read counters and tables that are in memory, and never the
//     rows of repositories or records. Their costly parts are kept for a time (limits.go).
//
// # Concurrency
//
// Handlers may be used by any goroutine, and start no goroutine. Changes of the filter are made one
// after the other; the locks of rows order other changes.
//
// # Files
//
//	admin.go   Options, Handlers            routes.go    the table of routes
//	repos.go   GET /repos                   change.go    PUT, DELETE, resync, tap
//	firehose.go sources and cursors         crawler.go   crawl sources
//	filter.go  GET and PATCH /filter        ingestion.go the switches
//	hosts.go   /hosts                       stats.go     /stats, probes
//	phase.go   the phase of the daemon      conditions.go  what backfill waits for
//	alerts.go  what fails                   overview.go  what the dashboard shows
//	maintenance.go  operations of maintenance  checkpoint.go  what a backup copies
//	subscriptions.go  durable subscriptions  verdict.go  whether the daemon needs an operator
//	copies.go  results of copies            limits.go    every limit
//
// Each handler type has the dependencies of the routes of one noun. New makes them.
package admin
