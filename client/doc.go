// Package client talks to a running daemon.
//
// # Purpose
//
// Send the requests of commands to a listener of a daemon.
//
// # Invariants
//
//  1. The size of everything that a daemon sends is bounded, and an error shows its text harmless.
//
// # Concurrency
//
// A Client may be used by any goroutine. It starts none.
//
// # Files
//
//   - client.go: Client, requests and their errors
package client
