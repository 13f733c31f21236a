// Package clients divides what is limited among clients.
//
// # Purpose
//
// A client is an address, or a network of IPv6. One client cannot take all places, connections or
// memory, however many requests it makes.
//
// # Invariants
//
//  1. A quarter is left to other clients.
//  2. A client waits for its own part first: its queue delays no other client.
//  3. A client that holds and awaits nothing takes no memory.
//
// # Concurrency
//
// Places and Turns may be used by any goroutine.
//
// # Files
//
//	clients.go   Of, Places, Turns
//	listener.go  connections of a listener
package clients
