// Package client talks to a running daemon.
//
// # Purpose
//
// It sends the requests of commands to a listener of a daemon, follows its event log, and shows
// events.
//
// # Invariants
//
//  1. The size of everything that a daemon sends is bounded.
//  2. Text of a daemon cannot control a terminal, neither in an error nor in an event, whether the
//     event is shown as a line or as JSON.
//  3. Follow calls Event for each event once, in the order of ids, over any number of connections.
//     It connects again at the last id + 1 and names the epoch of that id, so that Follow ends with
//     an error if the daemon no longer has the next event.
//
// # Concurrency
//
// A Client may be used by any goroutine, Lines by one at a time. Follow calls its functions from
// one goroutine at a time, and joins the two that read and write its connection.
//
// # Files
//
//   - client.go: Client, requests and their errors
//   - follow.go: Follow, the place in the log; stream.go: one connection
//   - event.go: events as the daemon sends them; lines.go: as a person reads them
package client
