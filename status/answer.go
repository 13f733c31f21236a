package status

import (
	"encoding/json"
	"fmt"
	"time"
)

// Answer is the answer of GET /overview, as docs/dashboard.md describes it.
type Answer struct {
	Time, Started string // RFC 3339
	Version       string
	Stats         Stats
	Disk          *Disk // nil: unknown
	Sources       struct {
		Total int
		Items []Source
	}
	Hosts struct {
		States map[string]int64
		Total  int
		Items  []Host
	}
	Subscriptions []Subscription
	Maintenance   struct {
		Short      string `json:"disk_short"`
		Operations []Operation
	}
	Copies     []Copy
	Conditions []Condition
	Alerts     struct {
		Total int
		Items []Alert
	}
	Alerting int // subjects of Alerts that alert
	Verdict  Verdict
	Charts   map[string]Chart
}

// Stats are the counters of the store and the totals of all firehoses.
type Stats struct {
	Counts    map[string]int64
	Sizes     map[string]int64 // bytes on the disk
	Ephemeral bool             // the store keeps events only
	Paused    map[string][]string
	Phase     *Phase // nil: active
	Firehose  *struct {
		Sources, Running, Failing, Events, Bytes int64
		Lag                                      float64 `json:"lag_seconds"`
	}
	Log struct{ Tail, Head uint64 }
}

// Phase is a phase other than active.
type Phase struct {
	Phase, Wanted, Reason, Failure string
	Reached                        bool
	Busy                           []string
}

// Disk is the disk of the store, in bytes.
type Disk struct {
	Free, Total, Reserve uint64
	Short                string // when the reserve will be reached, RFC 3339; "": not foreseen
}

// Source is a firehose.
type Source struct {
	URL             string
	Running, Direct bool
	Failures        int64                              `json:"consecutive_failures"`
	RetryIn         float64                            `json:"retry_in_secs"`
	LastFailure     *struct{ At, Kind, Detail string } `json:"last_failure"`
	Stats           struct {
		Events    int64
		LastEvent string  `json:"last_event"`
		Lag       float64 `json:"lag_seconds"`
	}
}

// Host is a host of repositories.
type Host struct {
	Host, State      string
	Accounts, Queued int64
	InFlight         int64  `json:"in_flight"`
	LastError        string `json:"last_error"`
	LastErrorAt      string `json:"last_error_at"`
	Limits           struct{ Concurrency int64 }
}

// Subscription is a durable subscription.
type Subscription struct {
	Name         string
	Lag          uint64 // ids of the log
	Outstanding  int64
	Connections  int64
	Webhook      string   // state; "": none
	WebhookError string   `json:"webhook_error"`
	HoldsLog     *float64 `json:"holds_log_seconds"`
}

// Operation is an operation of maintenance.
type Operation struct {
	Name, State, Waits, Since, Succeeded, Ended, Error, Due string
	Failures                                                int64
	Progress                                                *struct {
		Done, Total int64
		Item        string
	}
}

// Copy is the last result of what commands copied to one destination.
type Copy struct {
	Kind, Destination       string
	Running                 int64  // copies under way
	Since, Ended, Succeeded string // RFC 3339; "": never
	Error                   string // of the last copy
	Bytes                   int64  // of the last complete copy
	Failures                int64  // since the last copy without an error
}

// Condition is what backfill and crawling may wait for.
type Condition struct{ Name, State, Reason, Subject, Error string }

// Alert is a subject that fails.
type Alert struct {
	Kind, Subject, State, Since, Error string
	Due                                string // the earliest time of the alert, of a subject in grace
	Attempts                           int64
	Least                              int64 `json:"attempts_least"` // before an alert
}

// Chart has the newest points of series, oldest first. A point that is unknown is nil.
type Chart struct {
	Step   float64 // seconds
	Series map[string][]*float64
}

// Decode reads an answer.
func Decode(text []byte) (*Answer, error) {
	var a Answer
	if err := json.Unmarshal(text, &a); err != nil {
		return nil, fmt.Errorf("the answer is no overview: %w", err)
	}
	if parse(a.Time).IsZero() {
		return nil, fmt.Errorf("the answer is no overview: its time is %q", a.Time)
	}
	if a.Verdict.Level == "" {
		return nil, fmt.Errorf("the answer of version %q has no verdict: use the command of that version",
			a.Version)
	}
	return &a, nil
}

// parse reads a time of an answer. A text that is empty or no time gives zero.
func parse(moment string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, moment)
	if err != nil {
		return time.Time{}
	}
	return t
}

// now returns when the daemon answered.
func (a *Answer) now() time.Time { return parse(a.Time) }

// waiting returns how many repositories are not fetched yet.
func (a *Answer) waiting() int64 {
	c := a.Stats.Counts
	return c["pending"] // those that are being fetched are among them
}

// latest returns the newest known point of a series of the last hour.
func (a *Answer) latest(series string) (value float64, ok bool) {
	points := a.Charts["hour"].Series[series]
	for i := len(points) - 1; i >= 0; i-- {
		if points[i] != nil {
			return *points[i], true
		}
	}
	return 0, false
}

// left estimates when the queue is empty, by how fast it shrank in the points of the answer. ok is
// false if it did not shrink.
func (a *Answer) left() (d time.Duration, ok bool) {
	chart := a.Charts["hour"]
	points := chart.Series["pending"]
	first, last := -1, -1
	for i, p := range points {
		if p == nil {
			continue
		}
		if first < 0 {
			first = i
		}
		last = i
	}
	if last <= first || *points[last] >= *points[first] {
		return 0, false
	}
	perSecond := (*points[first] - *points[last]) / (float64(last-first) * chart.Step)
	seconds := float64(a.waiting()) / perSecond
	if !(seconds < leftMax.Seconds()) {
		return 0, false
	}
	return time.Duration(seconds * float64(time.Second)), true
}

// leftMax bounds an estimate. What takes longer is not known.
const leftMax = 1000 * 24 * time.Hour
