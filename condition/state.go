package condition

import (
	"strings"
	"time"

	"cistern/gate"
)

// State is what a condition does at the moment.
type State string

const (
	OK      State = "ok"
	Waiting State = "waiting" // it pauses backfill and crawling
	Unknown State = "unknown" // it cannot be read, and pauses nothing
)

// Status describes one condition.
type Status struct {
	Name    string
	State   State
	Since   time.Time // of State
	Reason  string    // the measure and its limit, as they were read last; "" if they never were
	Subject string    // for the operator
	Error   string    // why the last look failed; "" if it did not
}

// tracker follows one condition. It is a plain value: time and readings are arguments.
type tracker struct {
	Condition
	state    State // "" before the first look
	since    time.Time
	last     Reading // that succeeded
	failure  string  // of the last look
	failedAt time.Time
	cause    gate.Cause // as the gates have it; zero: they have none
}

// settle takes what a look found.
func (t *tracker) settle(r Reading, err error, now time.Time) {
	if err != nil {
		if t.failure == "" {
			t.failedAt = now
		}
		t.failure = clip(err.Error())
		if t.state == "" || now.Sub(t.failedAt) >= readGrace {
			t.become(Unknown, now)
		}
		return
	}
	t.failure, t.last = "", r
	switch {
	case r.Level == Bad:
		t.become(Waiting, now)
	case r.Level == Good, t.state != Waiting:
		t.become(OK, now)
	}
}

func (t *tracker) become(s State, now time.Time) {
	if t.state != s {
		t.state, t.since = s, now
	}
}

// wanted returns the cause that the gates should have, the zero Cause while the condition is met.
func (t *tracker) wanted() gate.Cause {
	if t.state != Waiting {
		return gate.Cause{}
	}
	return gate.Cause{Name: t.Name, Reason: t.Name + ": " + t.last.Text, Halts: t.Halts}
}

func (t *tracker) status() Status {
	return Status{Name: t.Name, State: t.state, Since: t.since, Reason: t.last.Text,
		Subject: t.last.Subject, Error: t.failure}
}

// clip bounds the text of an error, which is not empty.
func clip(text string) string {
	text = strings.ToValidUTF8(text[:min(len(text), errorBytesMax)], "")
	if text == "" {
		return "unknown error"
	}
	return text
}
