package copies

import "time"

// Row is the last result of one kind and destination. It survives a restart.
type Row struct {
	Statement

	Began      time.Time // of the oldest copy under way; zero: no copy is under way
	Ended      time.Time // of the last copy; zero: no copy has ended
	Succeeded  time.Time // when the last complete copy ended; zero: no complete copy is known
	Generation string    // of that copy
	Bytes      int64     // of that copy
	Took       time.Duration
	Error      string // of the last copy; "": it succeeded
	Failures   int    // since the last copy without an error
}

// Keeper keeps the rows across restarts.
type Keeper interface {
	// Load returns all rows, in any order.
	Load() ([]Row, error)
	// Save replaces all rows, durably. Calls do not overlap. A call may wait while the store is
	// frozen.
	Save([]Row) error
}

// result records in the row the result of a copy that began at began and ended at now.
func (r *Row) result(res Result, began, now time.Time) {
	r.Ended, r.Error = now, res.Error
	if res.Complete {
		r.Succeeded, r.Generation, r.Bytes = now, res.Generation, res.Bytes
		r.Took = max(0, now.Sub(began))
	}
	if r.Failures++; res.Error == "" {
		r.Failures = 0
	}
}

// used returns when the row last changed.
func (r *Row) used() time.Time {
	if r.Began.After(r.Ended) {
		return r.Began
	}
	return r.Ended
}
