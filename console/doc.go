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
//  2. Printable returns no character that moves the cursor, changes colours or reorders a line.
//
// # Concurrency
//
// A Terminal may be used by any goroutine. The functions have no state.
//
// # Files
//
//   - terminal.go: Terminal, colours
//   - text.go: text cut to a width and made printable; singular and plural
package console
