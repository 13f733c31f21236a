// Package command has what all commands of the program share.
//
// # Purpose
//
// It declares options, reads them from flags and variables, shows help, runs a command until a
// signal ends it, and turns its error into an exit code. It knows nothing of a daemon or a store.
//
// # Invariants
//
//  1. Every option is one row of a table: flag, CISTERN_* variable, default and help come from that
//     row.
//  2. All mistakes of a command line and of its variables are reported at once, as one error with
//     the exit code ExitUsage. An error shows neither a secret nor the user of a URL.
//  3. The first signal ends the context of a command, and the second one the process.
//  4. Help, the manual page and completion derive from the tree of commands.
//
// # Concurrency
//
// Process.UntilSignal owns the goroutine that waits for signals and the one of the command. A Table
// belongs to one goroutine.
//
// # Files
//
//   - process.go: Process, and how it runs a command; tree.go: the command that arguments name, and
//     their mistakes; exit.go: exit codes
//   - option.go: Option, tables of options, flags and variables; parse.go: how values are read
//   - help.go: help pages; manual.go: the manual page; complete.go: what shells complete
//   - table.go: Table, rows in columns
package command
