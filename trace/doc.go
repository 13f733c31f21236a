// Package trace sends spans of fetches and commits to a collector of OpenTelemetry.
//
// # Purpose
//
// Metrics tell that something is slow, and a trace tells where: it has the way of one repository or
// one commit through the daemon, with a span for each step.
//
// # Invariants
//
//  1. No other package knows OpenTelemetry.
//  2. A nil Tracer, and the zero Path, trace nothing: each call on them is one comparison, without
//     an allocation and without a look at the clock.
//  3. Tracing never delays what is traced. The queue of spans is bounded; spans beyond it, and
//     those that the collector does not take, are counted and dropped.
//  4. Whether something is traced is decided once, at its beginning, by chance.
//  5. No text in a span is longer than textBytesMax.
//
// # Concurrency
//
// Tracer.Run owns the goroutine that sends. The other methods of Tracer may be called from any
// goroutine. A Path is used by one goroutine at a time.
//
// # Files
//
//   - tracer.go: Tracer; path.go: Path, the spans of one trace; sender.go: the queue of spans
//   - options.go, metrics.go
package trace
