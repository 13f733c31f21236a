package condition

import (
	"cmp"
	"time"
)

// Level is how a measure compares with its limit.
type Level int

const (
	Good    Level = iota // the limit is kept
	Between              // the limit is kept, but not by enough to resume
	Bad                  // the limit is passed
)

// Reading is what a look at a measure found.
type Reading struct {
	Level Level
	// Text has the measure and its limit, such as "3.1 GiB free, 5.0 GiB needed". It is shown to
	// everybody.
	Text string
	// Subject is what was measured, such as a directory, for the operator. May be empty.
	Subject string
	// Stop is why the daemon must end, nil if it need not.
	Stop error
}

// Condition is one demand on the machine, or of the operator.
type Condition struct {
	// Name is the name of the cause at the gates, and a label of metrics. It is one word.
	Name string
	// Halts has work under way cut, and not only new work wait.
	Halts bool
	// Read reads the measure. An error means that it cannot be read.
	Read func(now time.Time) (Reading, error)
	// Told is called after each look with the reason to wait, "" if there is no such reason. Nil: no
	// call.
	Told func(reason string)
}

// atLeast compares a measure that must not fall below need. It is met again from resume on.
func atLeast[T cmp.Ordered](measure, need, resume T) Level {
	switch {
	case measure < need:
		return Bad
	case measure < resume:
		return Between
	}
	return Good
}

// atMost compares a measure that must not rise above limit. It is met again from resume down.
func atMost[T cmp.Ordered](measure, limit, resume T) Level {
	switch {
	case measure > limit:
		return Bad
	case measure > resume:
		return Between
	}
	return Good
}
