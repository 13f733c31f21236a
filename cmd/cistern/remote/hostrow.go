package remote

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"cistern/backfill/pace"

	"github.com/dustin/go-humanize"
)

// hostRow has the fields of a host that the commands show.
type hostRow struct {
	Host         string `json:"host"`
	State        string `json:"state"`
	Accounts     int64  `json:"accounts"`
	Queued       int64  `json:"queued"`
	InFlight     int    `json:"in_flight"`
	ParkedUntil  string `json:"parked_until"`
	FailingSince string `json:"failing_since"`
	LastError    string `json:"last_error"`
	LastErrorAt  string `json:"last_error_at"`
	Bytes        int64  `json:"bytes"`
	ReposFetched int64  `json:"repos_fetched"`
	FirstSeen    string `json:"first_seen"`
	LastSeen     string `json:"last_seen"`
	Limits       struct {
		Concurrency    int    `json:"concurrency"`
		ConcurrencyMin int    `json:"concurrency_min"`
		ConcurrencyMax int    `json:"concurrency_max"`
		PerSecond      int    `json:"per_second"`
		PerHour        int    `json:"per_hour"`
		PerDay         int    `json:"per_day"`
		OpensAt        string `json:"opens_at"`
		LatencyMs      int64  `json:"latency_ms"`
		Told           []struct {
			Limit     int    `json:"limit"`
			Remaining int    `json:"remaining"`
			Reset     string `json:"reset"`
		} `json:"told"`
	} `json:"limits"`
	Override pace.Override `json:"override"`
	line     json.RawMessage
}

// hostTitles names the columns of cells.
func hostTitles() []string {
	return []string{"HOST", "STATE", "QUEUED", "IN FLIGHT", "PER SECOND", "OVERRIDE", "ANSWERS IN",
		"ACCOUNTS", "LAST ERROR"}
}

// cells returns the host as a row of a table.
func (r *hostRow) cells() []string {
	state := r.State
	if until, err := time.Parse(time.RFC3339, r.ParkedUntil); err == nil {
		state += " until " + until.Local().Format("15:04:05")
	}
	return []string{r.Host, state, humanize.Comma(r.Queued), r.inFlight(), number(r.Limits.PerSecond),
		r.Override.String(), r.latency(), humanize.Comma(r.Accounts), r.lastError()}
}

// facts returns all that is known of the host, as names and values. A value that is unknown is "".
func (r *hostRow) facts() [][2]string {
	state := r.State
	if until := ago(r.ParkedUntil); until != "" {
		state += ", asked again " + until
	}
	if since := ago(r.FailingSince); since != "" {
		state += ", first failure " + since
	}
	l := r.Limits
	facts := [][2]string{
		{"host", r.Host}, {"state", state}, {"last error", r.lastError()},
		{"accounts", humanize.Comma(r.Accounts)}, {"queued", humanize.Comma(r.Queued)},
		{"in flight", fmt.Sprintf("%s (from %d to %d)", r.inFlight(),
			l.ConcurrencyMin, l.ConcurrencyMax)},
		{"per second", number(l.PerSecond)}, {"per hour", number(l.PerHour)},
		{"per day", number(l.PerDay)},
		{"override", r.Override.String()}, {"next request", cmp.Or(ago(l.OpensAt), "now")},
		{"answers in", r.latency()}, {"received", humanize.IBytes(uint64(max(0, r.Bytes)))},
		{"fetched", humanize.Comma(r.ReposFetched) + " repositories"},
		{"first seen", ago(r.FirstSeen)}, {"last answer", ago(r.LastSeen)},
	}
	for _, q := range l.Told {
		text := humanize.Comma(int64(q.Remaining))
		if q.Limit > 0 {
			text += " of " + humanize.Comma(int64(q.Limit))
		}
		facts = append(facts, [2]string{"quota", text + " requests left, renewed " + ago(q.Reset)})
	}
	return facts
}

// inFlight returns how many requests run, and how many may.
func (r *hostRow) inFlight() string {
	return fmt.Sprintf("%d of %d", r.InFlight, r.Limits.Concurrency)
}

// lastError returns the last error with its age: the host may have recovered since.
func (r *hostRow) lastError() string {
	return strings.TrimPrefix(ago(r.LastErrorAt)+": ", ": ") + r.LastError
}

func (r *hostRow) latency() string {
	if r.Limits.LatencyMs == 0 {
		return ""
	}
	return strconv.FormatInt(r.Limits.LatencyMs, 10) + " ms"
}

// number writes a limit, "" for none.
func number(n int) string {
	if n == 0 {
		return ""
	}
	return humanize.Comma(int64(n))
}
