package ingest

import "time"

// Limits on fetches that other parties cause.
const (
	refetchDelayMax = time.Hour
	// futureMax is the longest delay after which a repository with commits in the future is
	// fetched.
	futureMax = 24 * time.Hour
	// refetchWindow is how long a repository must be without breaks to be trusted as before.
	refetchWindow = time.Hour
	// Of one host's repositories refetchBurst are fetched again at once, and then one a second.
	refetchBurst   = 100
	refetchSeconds = 1
	// refetchHostsMax bounds the hosts remembered, at about 200 bytes each; the others share one
	// bucket.
	refetchHostsMax = 4096

	// Each change of an account's status costs statusAsk, for a request to its host and an event,
	// and the number of records that are listed again when it is shown. An account may owe
	// statusBurst before a change waits; a second pays off statusRate. So an account with few
	// records may change 500 times at once and then every ten seconds, one with a million records
	// once an hour.
	statusAsk   = 200
	statusBurst = 100_000
	statusRate  = 20
	// reviveSoon is how near the next status check of an inactive account must be for a commit not
	// to bring it forward.
	reviveSoon = time.Minute
)
