package durable

import (
	"cmp"
	"net/url"
	"strconv"
	"strings"
	"time"

	"cistern/filter"
)

// Status is a subscription as the operator sees it.
type Status struct {
	Name    string    `json:"name"`
	Filter  Filter    `json:"filter"`
	Created time.Time `json:"created"`
	// every event before it is settled, but the outstanding ones
	Next        uint64 `json:"next"`
	Lag         uint64 `json:"lag"`         // ids of the log from next on
	Outstanding int    `json:"outstanding"` // events sent and not acknowledged
	// how long the first of them has been outstanding, since the daemon started; null: none is
	Oldest *float64 `json:"oldest_outstanding_seconds"`
	// age of the oldest event that is in the log only because of the subscription; null: none is
	HoldsLog    *float64 `json:"holds_log_seconds"`
	Redelivered uint64   `json:"redelivered"` // events sent again since the daemon started
	// Snapshot is the one in progress, before the log from next on; null: none is.
	Snapshot *SnapshotStatus `json:"snapshot"`
	// Share is Exclusive or ByDID.
	Share string `json:"share"`
	// Connections are the open ones, in order of number.
	Connections []Connection `json:"connections"`
	// Webhook is where the events are posted; null: consumers connect.
	Webhook *WebhookStatus `json:"webhook"`
}

// SnapshotStatus is a snapshot in progress as the operator sees it.
type SnapshotStatus struct {
	// Records that were chosen so far: all but the outstanding ones are acknowledged.
	Records uint64 `json:"records"`
	// DID and Path are the record, or the repository, that was looked at last. Empty at first.
	DID  string `json:"did"`
	Path string `json:"path"`
	// Read means that all records are chosen, and the end waits for acknowledgements.
	Read bool `json:"read"`
}

// status returns the status of a snapshot; nil without a snapshot.
func (at *snapshot) status() *SnapshotStatus {
	if at == nil {
		return nil
	}
	return &SnapshotStatus{at.records, at.at.DID, string(at.at.Path), at.read}
}

// Connection is an open connection of a subscription as the operator sees it.
type Connection struct {
	Number      int `json:"number"`      // the lowest that was free when it began
	Outstanding int `json:"outstanding"` // events that it is to send, or the consumer to acknowledge
}

// Filter is a filter of events in JSON.
type Filter struct {
	Collections []string `json:"collections,omitempty"`
	DIDs        []string `json:"dids,omitempty"`
	Kinds       []string `json:"kinds,omitempty"`
	Actions     []string `json:"actions,omitempty"`
	Live        *bool    `json:"live,omitempty"`
}

func (f Filter) config() filter.EventsConfig {
	c := filter.EventsConfig{Collections: f.Collections, DIDs: f.DIDs, Kinds: f.Kinds,
		Actions: f.Actions}
	if f.Live != nil {
		c.Live = strconv.FormatBool(*f.Live)
	}
	return c
}

func filterOf(c filter.EventsConfig) Filter {
	f := Filter{Collections: c.Collections, DIDs: c.DIDs, Kinds: c.Kinds, Actions: c.Actions}
	if c.Live != "" {
		live := c.Live == "true"
		f.Live = &live
	}
	return f
}

// status returns the status while the head of the log is head.
func (s *Subscription) status(head uint64, now time.Time) Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{Name: s.def.Name, Filter: filterOf(s.def.Filter),
		Created: time.Unix(s.def.Created, 0).UTC(), Next: s.window.next,
		Outstanding: len(s.window.outstanding), Redelivered: s.redelivered.Load(),
		Share: cmp.Or(s.def.Share, Exclusive), Connections: []Connection{},
		Webhook: s.hook.status(), Snapshot: s.window.snapshot.status()}
	for _, m := range s.window.members {
		if !s.members[m].sends {
			st.Connections = append(st.Connections, Connection{m.number, m.held})
		}
	}
	if head >= st.Next {
		st.Lag = head - st.Next + 1
	}
	if at, ok := s.window.oldest(); ok {
		seconds := now.Sub(at).Seconds()
		st.Oldest = &seconds
	}
	if age, ok := s.store.Backlog(s.def.Name); ok {
		seconds := age.Seconds()
		st.HoldsLog = &seconds
	}
	return st
}

// Snapshot returns the path of a stream that has the current records that the subscription wants,
// and then the events. It is "" if no snapshot has what the subscription wants.
func (s *Subscription) Snapshot() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.def.Filter
	if !WantsSnapshot(s.filter) {
		return ""
	}
	q := url.Values{"snapshot": {"true"}}
	for name, values := range map[string][]string{"collections": c.Collections, "dids": c.DIDs,
		"kinds": c.Kinds, "actions": c.Actions, "live": {c.Live}} {
		if text := strings.Join(values, ","); text != "" {
			q.Set(name, text)
		}
	}
	return "/stream?" + q.Encode()
}
