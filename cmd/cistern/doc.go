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
//     row. Config.options has the options of run, from which docs/options.md is generated too.
//     backup.go, export.go, import.go, demo.go, repo.go, subscription.go, maintain.go and tail.go
//     have tables of their own, which only the help pages show.
//  3. If the command line or the environment has mistakes, nothing starts, and all mistakes are
//     reported at once.
//  4. app.daemon opens the listeners, and newDaemon builds each box after the boxes that it uses.
//     Then boxes.Run starts all boxes; none waits for another, but backfill waits ten seconds at
//     most until a connection to each source was tried. They stop one after the other: progress,
//     supervisor, ingest, charts, alerts, crawl, backfill, conditions, backlinks, maintenance,
//     webhooks, api, phase, store, traces. Before, all gates are shut; after, the store is frozen,
//     and closed. If one misses the shutdown budget, the store is not closed under it: the log
//     recovers it.
//
// # Concurrency
//
// app.until owns the goroutine that waits for signals and the one of the command, boxes.Run one for
// each box, and the demo one that writes to its network and one for its progress.
//
// # Files
//
//   - main.go, app.go: the process, the command tree, signals; slack.go: how late timers may be
//   - config.go, option.go, values.go: the options, how flags and variables set them, how their
//     values are read; help.go, man.go, complete.go: help, the manual page, what shells complete
//   - daemon.go, boxes.go: what starts, in which order, and how it stops
//   - firehose.go, crawler.go, filter.go: ingest, discovery and the filter as options and the
//     private listener set them
//   - gates.go: what pauses the parts that bring data in; disk.go: the disk reserve; phases.go: what
//     a phase waits for, and phase.go the command; supervisor.go: systemd, SIGHUP
//   - progress.go: the progress line; charts.go: the figures of the charts
//   - demo.go, tour.go: the demo and its example queries
//   - operations.go: the operations of maintenance, and which of them may run together
//   - check.go: offline verification; backup.go: backups, by command and on a schedule
//   - export.go: files of records, by command and as an operation; exportcars.go, import.go:
//     repositories into CAR files, and from them
//   - repo.go, subscription.go (webhook.go: its webhook), maintain.go, tail.go: commands for a running
//     daemon; status.go: whether all is well in one, top.go: the same live; remote.go: what those of
//     the private listener share; eventfilter.go: options that choose events
package main
