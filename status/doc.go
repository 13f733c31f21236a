// Package status shows what a daemon does on one screen.
//
// # Purpose
//
// It writes the answer of GET /overview as a page of text for terminals of any width: once, for
// 'cistern status', or with rates, for 'cistern top'.
//
// # Invariants
//
//  1. No line of a page is wider than the columns that were asked for; without a width, no line is
//     cut.
//  2. Text of the daemon cannot control a terminal.
//  3. Ages and rates follow from the times in the answers, and not from the clock of this machine,
//     so that equal answers make equal pages.
//
// # Concurrency
//
// Functions have no state. An Answer is not changed after Decode. One goroutine uses a Live.
//
// # Files
//
//   - answer.go: what a daemon answers; verdict.go: the verdict in the answer
//   - page.go: the parts of the page and their order; parts.go: what each part says
//   - trend.go: rates from two answers; live.go: the page that is redrawn, and its rows where there
//     is no terminal
//   - layout.go: lines, tables and columns
package status
