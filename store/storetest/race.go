//go:build race

package storetest

// Race reports whether the race detector is on.
const Race = true
