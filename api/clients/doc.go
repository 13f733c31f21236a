// Package clients shares limited resources among clients.
//
// # Purpose
//
// A client is an IPv4 address or an IPv6 network. One client cannot take all places, connections,
// memory or processors, however many requests it makes.
//
// # Invariants
//
//  1. One client gets at most three quarters of a resource.
//  2. A client waits for its own part first: its queue delays no other client.
//  3. Beside another client, one client has at most half of the processors, and the client that has
//     computed the least computes next.
//  4. A client that holds nothing and waits for nothing takes no memory, but for brakeClients
//     clients that have guessed a secret.
//
// # Concurrency
//
// Places, Turns, Queue, Brake and WakeAt may be used by any goroutine, a Slot by one at a time.
//
// # Files
//
//	clients.go   Of, Places, Turns
//	queue.go     Queue: the processors
//	listener.go  connections of a listener
//	header.go    large headers of requests
//	brake.go     Brake: wrong guesses of a secret
//	wake_linux.go, wake_other.go  how much wakes the reader of a connection
package clients
