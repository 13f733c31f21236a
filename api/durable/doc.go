// Package durable keeps what consumers have acknowledged of the event log.
//
// # Purpose
//
// It holds the durable subscriptions: what each wants, which events are sent and not acknowledged,
// and what is to be sent again. It writes them to the store, and sends nothing itself.
//
// # Invariants
//
//  1. Every event before the position of a subscription that its filter wanted was acknowledged,
//     was hidden, is outstanding, or is in a gap that is outstanding.
//  2. The position on disk never moves back, and never leaves out an outstanding event. An event
//     that was acknowledged before the position was written is not sent again.
//  3. An event that is due comes with all later outstanding events of its account, so that sending
//     them in order keeps the order of each repository. With a new connection all are due.
//  4. A change of a filter takes effect exactly at the id that the answer names, also after a
//     crash.
//  5. A subscription has one connection. Once it is deleted, nothing writes its rows.
//
// # Concurrency
//
// A Registry and its subscriptions may be used by any goroutine; only the connection calls Take,
// Again, Due and Lost. Put and Drop are made one after the other. A subscription's saving is taken
// before its mu.
//
// # Files
//
//	registry.go      Options, Registry: all subscriptions    limits.go
//	subscription.go  Subscription: one of them, its rows     window.go   what is outstanding
//	status.go        Status, Filter: as the operator sees it
package durable
