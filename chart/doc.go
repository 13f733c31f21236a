// Package chart keeps recent figures in memory, for charts.
//
// # Purpose
//
// A Recorder reads figures of the daemon, such as counters and lags, once a step. It keeps them for
// the last hour, and more coarsely for the last day, so that a chart needs no other program and no
// disk.
//
// # Invariants
//
//  1. A series takes a fixed number of bytes: shortPoints and longPoints of four bytes each. The
//     number of series is fixed when the Recorder is made.
//  2. A point is the value of its series at its time, or unknown. Steps during which nothing was
//     recorded are unknown, and never show the values of earlier ones.
//  3. The value of a counter is its growth per second since the point before. A counter that was
//     reset is recorded as 0, never as a negative value.
//  4. If the clock goes back by more than a step, the points recorded so far are dropped: their
//     times are unknown.
//
// # Concurrency
//
// Run owns no goroutine but its own, and is the only one that reads figures. The other methods of
// Recorder may be called from any goroutine. Trend is pure.
//
// # Files
//
//   - recorder.go: Options, Series, Recorder
//   - ring.go: the points of all series in one range; View; points.go: their form in JSON
//   - trend.go: how fast a figure changes
package chart
