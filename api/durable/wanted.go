package durable

import (
	"bytes"
	"context"
	"encoding/json"
	"strconv"
	"time"

	"cistern/api/wire"
)

// Wanted is what a subscription is to be, as PUT has it.
type Wanted struct {
	Filter Filter `json:"filter"`
	Start  Start  `json:"start"` // of a new subscription
	Share  string `json:"share"` // Exclusive or ByDID. Default: Exclusive
	// Webhook is where the events are posted. Default: consumers connect.
	Webhook *WantedWebhook `json:"webhook"`
}

// share returns the value that the store has. The error is a refusal.
func (w Wanted) share() (string, error) {
	switch w.Share {
	case "", Exclusive:
		return "", nil
	case ByDID:
		if w.Webhook != nil {
			return "", wire.Invalid("share %s: a webhook has no connections to divide it; "+
				"webhook.requests says how many requests are in flight at a time", wire.Echo(w.Share))
		}
		return ByDID, nil
	}
	return "", wire.Invalid("share %s: want %q or %q", wire.Echo(w.Share), Exclusive, ByDID)
}

// Start is where a new subscription begins. The zero value is the next event.
type Start struct {
	// Snapshot is with all current records, and then the events from the head on.
	Snapshot bool
	Oldest   bool   // otherwise at the oldest event kept
	ID       uint64 // otherwise at this id, if not 0
	Since    int64  // otherwise at the first event of this time or later, if not 0; unix microseconds
}

// UnmarshalJSON reads "snapshot", "head", "oldest", an id, or a time like "2026-01-02T15:04:05Z".
// null is the head. The error is a refusal.
func (at *Start) UnmarshalJSON(text []byte) error {
	*at = Start{}
	switch string(bytes.TrimSpace(text)) {
	case "null", `"head"`:
		return nil
	case `"oldest"`, "0":
		at.Oldest = true
		return nil
	case `"snapshot"`:
		at.Snapshot = true
		return nil
	}
	var err error
	if at.ID, err = strconv.ParseUint(string(text), 10, 64); err == nil {
		return nil
	}
	var named string
	if json.Unmarshal(text, &named) == nil {
		if t, err := time.Parse(time.RFC3339, named); err == nil && t.UnixMicro() > 0 {
			at.Since = t.UnixMicro()
			return nil
		}
	}
	return wire.Invalid(`start %s: want "snapshot", "head", "oldest", an id, or a time like `+
		`"2026-01-02T15:04:05Z"`, wire.Echo(string(text)))
}

// in returns the id that a log begins at, unless it is a snapshot. The error is that of ReadLog or
// FirstSince.
func (at Start) in(ctx context.Context, log Log) (uint64, error) {
	switch {
	case at.Oldest || at.ID != 0:
		return log.ReadLog(ctx, at.ID, 0, nil)
	case at.Since != 0:
		return log.FirstSince(at.Since)
	}
	return log.Head() + 1, nil
}
