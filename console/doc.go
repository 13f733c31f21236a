// Package console writes text to terminals.
//
// # Purpose
//
// It shows text in the width and the colours of a terminal, and keeps text from outside from
// controlling the terminal.
//
// # Invariants
//
//  1. Output that is not a terminal gets no colours and no line that is redrawn.
//  2. A Screen that is closed or suspended leaves the terminal as it was.
//  3. Printable returns no character that moves the cursor, changes colours or reorders a line.
//
// # Concurrency
//
// A Terminal may be used by any goroutine. One goroutine uses a Screen; any may close it. The
// functions have no state. Progress.During owns the goroutine that draws.
//
// # Files
//
//   - terminal.go: Terminal, colours; screen.go: Screen, a whole terminal with its keys
//   - progress.go: Progress, how far a long command is
//   - text.go: text cut to a width and made printable; singular and plural
package console
