package verdict

import (
	"time"

	"cistern/alert"
)

// Facts are what a verdict is made of. A fact that is not known keeps its zero value, which is
// well.
type Facts struct {
	Now time.Time
	// Unready is why the daemon is not ready, "" if it is.
	Unready string
	// Phase is the phase of the daemon. Nil: it is active, and is to stay so.
	Phase *Phase
	// Paused has the reasons for which parts of ingestion are paused, by part.
	Paused map[string][]string
	// Alerts are the subjects that fail, in the order in which they are named.
	Alerts  []alert.Subject
	Sources []Source
	// DiskShort is when the free space of the disk will be the reserve. Zero: that is not foreseen.
	DiskShort time.Time
	// Tracking is which repositories are tracked. Nil: unknown.
	Tracking *Tracking
	// Backups are the destinations of 'cistern backup' where the last backup failed and that an
	// operator should look at.
	Backups []Backup
	// Ignored are options of the filter that differ from the filter in force.
	Ignored []Ignored
}

// Phase is a phase other than active.
type Phase struct {
	Name, Wanted string
	Reached      bool
	Failure      string // why the phase cannot be reached, "" if it can
	Reason       string // why it lasts until the daemon ends, "" if the operator can end it
}

// Source is a firehose.
type Source struct {
	URL     string
	Running bool   // connected
	Direct  bool   // added by Cistern, because relays leave out events of its accounts
	Failure string // why it is not connected, "" if that is unknown
}

// Tracking is how repositories come to be tracked.
type Tracking struct {
	Repos int64 // tracked now
	Full  bool  // the filter has mode full
	Finds bool  // the filter and the sources can find repositories that nothing names
}

// Backup is the last 'cistern backup' to a destination, if it ended with an error.
type Backup struct {
	Destination string
	Ended       time.Time
	Error       string
}

// Ignored is an option of the filter that applies to a new store only.
type Ignored struct {
	Option string // with the value that is ignored, such as "--mode full"
	Held   string // what the filter in force has instead
}
