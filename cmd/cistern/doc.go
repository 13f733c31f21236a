// Command cistern runs, checks and drives a Cistern index.
//
// # Purpose
//
// It turns a command line into Options, wires the packages below into one daemon, and shows the
// daemon's state.
//
// # Invariants
//
//  1. Only this package reads flags, the environment and signals, and ends the process.
//  2. Every option is one row of a table: flag, CISTERN_* variable, default and help come from that
//     row. The help pages and the table in docs/options.md are generated from Config.options.
//  3. If the command line or the environment has mistakes, nothing starts, and all mistakes are
//     reported at once.
//  4. Boxes start in the order of daemon.boxes and stop in the reverse order, one after the other.
//     If one misses the shutdown budget, the store is not closed under it: the log recovers it.
//
// # Concurrency
//
// app.untilSignal owns the goroutine that waits for signals, and boxes.Run owns one for each box.
//
// # Files
//
//   - main.go, app.go: the process, the command tree, signals
//   - config.go, values.go, help.go: options, how their values are read, help pages
//   - daemon.go, boxes.go: what starts, in which order, and how it stops
//   - firehose.go, crawler.go, filter.go: ingest, discovery and the filter as options and the
//     private listener set them
//   - gates.go: what pauses the parts that bring data in; disk.go: the disk reserve
//   - progress.go: the progress line
//   - demo.go, tour.go: the demo and its example queries
//   - check.go: offline verification
//   - repo.go, tail.go: commands for a running daemon
package main
