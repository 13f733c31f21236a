package storetest

import "testing"

// raceShare is the inverse of the share of seeds that also run with the race detector: it makes
// them ten times as slow, and finds what it finds in the first few.
const raceShare = 20

// Seeds returns how many of n seeds a test runs: all, or a twentieth with the race detector.
func Seeds(n uint64) uint64 {
	if Race {
		return max(n/raceShare, 2)
	}
	return n
}

// WithoutRace skips a test with the race detector. It is for long tests that have one goroutine at
// a time or run the daemon as another process.
func WithoutRace(t *testing.T) {
	t.Helper()
	if Race {
		t.Skip("runs without the race detector")
	}
}
