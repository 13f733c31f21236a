package statuspage

import (
	"time"

	"cistern/chart"
)

// Backfill is how far the fetch of all repositories is.
type Backfill struct {
	// Total is the number of repositories that are to be fetched, and Done of those that are.
	Total    int64 `json:"total"`
	Done     int64 `json:"done"`
	Waiting  int64 `json:"waiting"`  // in the queue
	Fetching int64 `json:"fetching"` // right now
	Failing  int64 `json:"failing"`  // wait to be tried again
	// Ends is when the queue will be empty, at the pace of the last minutes. It is absent if the
	// queue does not shrink, or if that is not known yet.
	Ends string `json:"ends,omitempty"`
}

// The end of the backfill is estimated by the last paceSpan, once it has paceLeast points, a
// minute. An end that is further away than endMax is not known.
const (
	paceSpan  = 10 * time.Minute
	paceLeast = 6
	endMax    = 2 * 365 * 24 * time.Hour
)

// backfill returns how far the backfill is.
func backfill(f Facts) Backfill {
	c := f.Counts
	b := Backfill{Total: c["repos"] - c["idle"] - c["gone"], Waiting: c["pending"],
		Fetching: c["syncing"], Failing: c["resync"]}
	b.Done = max(0, b.Total-b.Waiting-b.Failing)
	if f.Charts == nil || b.Waiting == 0 {
		return b
	}
	view := f.Charts.Hour(f.Now.Add(-paceSpan))
	perSecond, ok := chart.Trend(view.Step, valuesOf(f.Charts, view, "pending"), paceLeast)
	if left := float64(b.Waiting) / -perSecond; ok && perSecond < 0 && left < endMax.Seconds() {
		b.Ends = moment(f.Now.Add(time.Duration(left) * time.Second))
	}
	return b
}
