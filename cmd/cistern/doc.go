// Command cistern runs, checks and drives a Cistern index.
//
// # Purpose
//
// Turn a command line into Options, wire the packages below into one daemon, and show people
// what it does.
//
// # Invariants
//
//  1. Only this package reads flags, the environment and signals, and ends the process.
//  2. Every option is one row of Config.options: flag, CISTERN_* variable, default and help come
//     from that row, and so does the table in README.md.
//  3. A command line or an environment with a mistake starts nothing, and all its mistakes are
//     named at once.
//  4. Boxes start in the order of daemon.boxes and stop in the reverse, each before the next. When
//     one misses the shutdown budget the store is not closed under it: the log recovers it.
//
// # Concurrency
//
// app.untilSignal owns the goroutine that waits for signals, boxes.Run one per box.
//
// # Files
//
//   - main.go, app.go: the process, the command tree, signals
//   - config.go, values.go, help.go: options, how their values are read, help texts
//   - daemon.go, boxes.go: what starts, in which order, and how it stops
//   - firehose.go: ingest and its switches as the private listener drives them
//   - disk.go: the disk reserve
//   - progress.go, terminal.go: the progress line
//   - demo.go, tour.go: the demo and its example queries
//   - check.go: offline verification
//   - repo.go, admin.go: commands for a running daemon
//   - table.go, text.go: output for people
package main
