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
//  2. The position on disk never moves back but by Replay, and never leaves out an outstanding
//     event. An event that was acknowledged before the position was written is not sent again.
//  3. Events of an account are taken in order: an event is taken again, or released until later,
//     with all later outstanding events of its account. What a connection has when it ends is to be
//     sent again at once.
//  4. A change of a filter takes effect exactly at the id that the answer names, also after a
//     crash.
//  5. An exclusive subscription has one connection. Once a subscription is deleted, nothing writes
//     its rows.
//  6. All outstanding events of an account are at one connection. They move only if it ends, or if
//     it is stalled: it has acknowledged nothing for a retry timeout while it held events. No event
//     is added while the account of an outstanding one is unknown.
//  7. A record of a snapshot that did not change since its head becomes outstanding once. The end
//     follows when all records are settled, and the log when the end is. No number of a record or
//     of an end is the id of an event, and none is given twice.
//
// # Concurrency
//
// A Registry and its subscriptions may be used by any goroutine; Member states which of its methods
// are for one. Put, Replay and Drop are made one after the other. Of the members of a subscription
// one at a time adds events (Turn). A subscription's turn and its saving are taken before its mu.
//
// # Files
//
//	registry.go      Options, Registry: all subscriptions    limits.go, metrics.go
//	subscription.go  Subscription: one of them, its rows     window.go   what is outstanding
//	member.go        Member: one of its connections          choose.go   which one gets an account
//	status.go        Status, Filter: as the operator sees it wanted.go   Wanted: what PUT asks for
//	snapshot.go      records before the log    webhook.go  Hook: what package webhook sends
package durable
