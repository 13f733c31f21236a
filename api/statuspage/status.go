package statuspage

import (
	"time"

	"cistern/alert"
	"cistern/chart"
	"cistern/condition"
)

// Facts are what a Status is made of. They have private parts.
type Facts struct {
	Now     time.Time
	Version string
	// Counts are the counts of the store by name, and "syncing".
	Counts  map[string]int64
	Sources []Following
	Alerts  []alert.Subject
	// Conditions may pause backfill and crawling.
	Conditions []condition.Status
	// Paused are the names of the parts of ingestion that are paused.
	Paused []string
	// Phase is the phase of the daemon, "" while it is active.
	Phase string
	// Charts are the recent figures. Nil: none are kept.
	Charts *chart.Recorder
}

// Status is all that is public. Times are in RFC 3339, "" if they are unknown.
type Status struct {
	Time         string       `json:"time"`
	Version      string       `json:"version"`
	Verdict      Verdict      `json:"verdict"`
	Problems     []Problem    `json:"problems"`
	Repositories Repositories `json:"repositories"`
	Records      int64        `json:"records"`
	Backfill     Backfill     `json:"backfill"`
	Firehose     Firehose     `json:"firehose"`
	Charts       Charts       `json:"charts"`
}

// Repositories are the numbers of repositories by state, and of those in state resync by the kind
// of their failure.
type Repositories struct {
	Total       int64 `json:"total"`
	Synced      int64 `json:"synced"`
	Pending     int64 `json:"pending"`
	Draining    int64 `json:"draining"`
	Resync      int64 `json:"resync"`
	Gone        int64 `json:"gone"`
	Idle        int64 `json:"idle"`
	RateLimited int64 `json:"error_ratelimited"`
	Unreachable int64 `json:"error_transport"`
	Refused     int64 `json:"error_generic"`
}

// Of returns what is public of facts.
func Of(f Facts) Status {
	c := f.Counts
	s := Status{Time: moment(f.Now), Version: f.Version, Records: c["records"],
		Repositories: Repositories{Total: c["repos"], Synced: c["synced"], Pending: c["pending"],
			Draining: c["draining"], Resync: c["resync"], Gone: c["gone"], Idle: c["idle"],
			RateLimited: c["error_ratelimited"], Unreachable: c["error_transport"],
			Refused: c["error_generic"]},
		Problems: problems(f), Firehose: firehose(f.Sources), Backfill: backfill(f),
		Charts: charts(f.Charts)}
	s.Verdict = verdictOf(f, s.Firehose)
	return s
}

// moment writes a time in whole seconds, "" for the zero time.
func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
