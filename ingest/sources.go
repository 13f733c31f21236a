package ingest

import "time"

// SourceStatus is what is known of a source.
type SourceStatus struct {
	URL       string // normalised
	PDS       bool
	Persisted bool // added while running, not named by the Options

	Running  bool // connected
	Failures int  // in a row
	RetryIn  time.Duration
	// LastFailure and its time, kind (dial, http, closed, timeout, silent, error, read) and text; zero if there was none.
	LastFailure LastFailure

	Cursor    int64     // durable low watermark; 0 for none yet
	Seq       int64     // newest seq read
	Events    int64     // frames read since the process began
	Bytes     int64     // of them
	Bad       int64     // frames that were no frames, passed over
	Refused   int64     // events that a PDS sent about accounts that are not its own
	LastEvent time.Time // when the newest frame was read
	Lag       time.Duration // now less the time that the newest event states; 0 if unknown
}

// LastFailure is how a connection ended, or why there was none.
type LastFailure struct {
	At     time.Time
	Kind   string
	Detail string
}
