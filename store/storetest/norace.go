//go:build !race

package storetest

// Race says that the race detector is on.
const Race = false
