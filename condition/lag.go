package condition

import (
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
)

// Backlog is how far a durable subscription is behind the log.
type Backlog struct {
	Name   string
	Events uint64        // ids of the log that it has not passed
	Age    time.Duration // of the first event of these; 0 for none
}

// LagLimit bounds how far a durable subscription may be behind. Zero is no bound.
type LagLimit struct {
	Events uint64
	Age    time.Duration
}

// Lag waits while a subscription is further behind than the limit. It has caught up when it is
// within three quarters of it. read returns all subscriptions, with their ages if ages is true.
func Lag(limit LagLimit, read func(now time.Time, ages bool) ([]Backlog, error)) Condition {
	return Condition{Name: "lag", Read: func(now time.Time) (Reading, error) {
		all, err := read(now, limit.Age > 0)
		if err != nil {
			return Reading{}, fmt.Errorf("positions of subscriptions: %w", err)
		}
		return lagReading(limit, all), nil
	}}
}

// lagReading judges the subscription that is furthest behind, by events first.
func lagReading(limit LagLimit, all []Backlog) Reading {
	var most, oldest Backlog
	for _, b := range all {
		if most.Name == "" || b.Events > most.Events {
			most = b
		}
		if oldest.Name == "" || b.Age > oldest.Age {
			oldest = b
		}
	}
	var events, age Reading
	if limit.Events > 0 {
		events = Reading{Subject: most.Name,
			Level: atMost(most.Events, limit.Events, limit.Events-limit.Events/slack),
			Text: fmt.Sprintf("a subscription is %s events behind, %s allowed",
				comma(most.Events), comma(limit.Events))}
	}
	if limit.Age > 0 {
		age = Reading{Subject: oldest.Name,
			Level: atMost(oldest.Age, limit.Age, limit.Age-limit.Age/slack),
			Text: fmt.Sprintf("a subscription is %s behind, %s allowed",
				oldest.Age.Truncate(time.Second), limit.Age)}
	}
	if events.Text == "" || age.Level > events.Level {
		return age
	}
	return events
}

func comma(n uint64) string { return humanize.Comma(int64(min(n, 1<<62))) }
