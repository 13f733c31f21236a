// Package wire has what the requests and answers of all handlers have in common.
//
// # Purpose
//
// It names refusals, writes JSON answers, and appends text and records as JSON.
//
// # Invariants
//
//  1. What an error repeats of a request is bounded and quoted.
//  2. Every string and record becomes valid JSON, or the reason why it has no JSON form.
//
// # Concurrency
//
// Everything may be called by any goroutine.
//
// # Files
//
//	answer.go  refusals, JSON answers
//	text.go    strings and records as JSON
package wire
