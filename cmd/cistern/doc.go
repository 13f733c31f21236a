// Command cistern runs, checks and drives a Cistern index.
//
// # Purpose
//
// It turns a command line into Options, wires the packages below into one daemon, and has the
// commands that open a store or a destination.
//
// # Invariants
//
//  1. Only main reads the environment and ends the process, and only this package and the packages
//     in it read flags and signals.
//  2. Every option is a row of a table, a command.Option. Config.options has the options of run,
//     from which docs/options.md is generated too. backup.go, export.go, import.go and demo.go have
//     tables of their own, which docs/options.md does not contain.
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
// A command runs in a goroutine of command.Process. boxes.Run owns one for each box, and the demo
// one that writes to its network and one for its progress.
//
// # Files
//
//   - main.go, app.go: the process, the command tree; slack.go: how late timers may be
//   - config.go, values.go: the options of run, and how their values are read; schedule.go: those
//     of maintenance; man.go: the texts of the manual page
//   - daemon.go, boxes.go: what starts, in which order, and how it stops
//   - firehose.go, crawler.go, filter.go: ingest, discovery and the filter as options and the
//     private listener set them
//   - gates.go: what pauses the parts that bring data in; conditions.go: what pauses backfill by
//     itself; phases.go: what a phase waits for; supervisor.go: systemd, SIGHUP
//   - progress.go: the progress line; charts.go, diskload.go: figures of charts and metrics;
//     alerts.go: what fails
//   - demo.go, tour.go: the demo and its example queries
//   - operations.go: the operations of maintenance, and which of them may run together
//   - check.go: offline verification; backup.go: backups, by command and on a schedule;
//     place.go: how a destination is named to the daemon
//   - export.go: files of records, by command and as an operation; exportcars.go, import.go:
//     repositories into CAR files, and from them
//   - backlinks.go: the index of backlinks; offload.go: the archive of the log
package main
