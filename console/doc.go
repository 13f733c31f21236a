// Package console has text for terminals.
//
// # Purpose
//
// Show text in the width and the colours that a terminal has, and keep foreign text from driving it.
//
// # Invariants
//
//  1. Output that is not a terminal gets no colours and no line that is redrawn.
//  2. Printable returns no character that moves the cursor, changes colours or reorders a line.
//
// # Concurrency
//
// A Terminal may be used by any goroutine. The functions have no state.
//
// # Files
//
//   - terminal.go: Terminal, colours
//   - text.go: text cut to a width, made harmless, and in the right number
package console
