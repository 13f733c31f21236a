// Package verdict decides whether a daemon needs an operator.
//
// # Purpose
//
// It has the one rule by which 'cistern status', 'cistern top', the dashboard and the public status
// page say that a daemon is well, or what is the matter with it.
//
// # Invariants
//
//  1. Equal facts make equal verdicts: Of reads no clock and no state.
//  2. A verdict has at most sentencesMax problems and as many notes; Count has all problems.
//  3. Each problem and each note is one sentence. It may have text from outside, such as the error
//     of a host, which its reader must escape.
//
// # Concurrency
//
// The functions have no state.
//
// # Files
//
//   - facts.go: Facts, what a verdict is made of
//   - verdict.go: Verdict, and the rule, Of
package verdict
