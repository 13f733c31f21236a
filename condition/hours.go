package condition

import (
	"fmt"
	"time"
)

// Span is a part of every day.
type Span interface {
	// Contain reports whether t is in the span, in the location of t.
	Contain(t time.Time) bool
	// String returns the span as in 22:00-06:00.
	String() string
}

// Hours waits outside of a part of the day, in the location of the clock.
func Hours(s Span) Condition {
	return Condition{Name: "hours", Read: func(now time.Time) (Reading, error) {
		r := Reading{Text: fmt.Sprintf("it is %s, the hours are %s", now.Format("15:04"), s)}
		if !s.Contain(now) {
			r.Level = Bad
		}
		return r, nil
	}}
}
