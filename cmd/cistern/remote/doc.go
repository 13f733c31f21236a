// Package remote has the commands that ask a running daemon.
//
// # Purpose
//
// It turns command lines into requests to the listeners of a daemon, and the answers into tables,
// sentences and screens.
//
// # Invariants
//
//  1. A command opens no store: it shows answers of the daemon, and changes it only by requests.
//  2. With --json standard output has JSON lines and no other text, but for the word of status
//     --probe.
//  3. Only --admin and --admin-token are read from variables: variables of the names of the other
//     options configure the daemon.
//  4. top gives the terminal back before the process ends, unless SIGKILL ends it.
//
// # Concurrency
//
// A command runs in the goroutine of command.Process. top has one for its samples, one for the
// screen and one for signals; a wait for an operation has one that shows its progress.
//
// # Files
//
//   - commands.go: Options, Commands; session.go: what one run of a command has, and its requests
//   - status.go: whether all is well in a daemon; top.go: the same, live
//   - tail.go: events as they happen; eventfilter.go: options that choose events
//   - repo.go: repositories; host.go, hostrow.go: hosts, and how one is shown
//   - subscription.go, webhook.go: durable subscriptions, and their webhooks
//   - maintain.go: maintenance; phase.go: the phase; alerts.go: what fails
//   - borrow.go: Borrow, for commands that copy the store of a daemon
package remote
