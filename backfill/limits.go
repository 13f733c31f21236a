package backfill

import "time"

// Limits on what comes from outside, and on what waits in memory.
const (
	// readyMin and readyMax bound how many rows of one host's queue are read ahead, at about
	// 100 bytes each. A read steps over the host's rows in flight, so more of those, more ahead.
	readyMin = 32
	readyMax = 1024

	// roomMax bounds the repositories of one host that are resolved and wait for a permit, and
	// roomsMax those of all hosts: 4,096 of about 400 bytes are 1.6 MiB.
	roomMax  = 32
	roomsMax = 4096

	// movesPerSecond bounds how fast rows are moved to the queue of a host that is busy, each a
	// small write of about 20 µs: 2 % of a core. 10,000 rows of one dead host in front of all
	// others are out of the way in ten seconds.
	movesPerSecond = 1000

	// idlePause is how long there must be nothing to fetch before imports are flipped early: a
	// trickle then costs at most 20 small batches a second.
	idlePause = 50 * time.Millisecond

	// rescanEvery bounds how often a wake-up makes us look at the queues that grew, and rescanAllEvery at all that hold
	// rows: about 0.4 µs a host.
	rescanEvery    = 50 * time.Millisecond
	rescanAllEvery = time.Second

	// diffOpsMax and diffBytesMax bound one batch of a difference: 500 reads hold the DID's lock for 5 ms,
	// cold ones for 50, and live commits of the DID wait; 4 MiB is well below a memtable.
	diffOpsMax   = 500
	diffBytesMax = 4 << 20

	// parkMin and parkMax clamp what a host may ask of us, so that no header silences us for
	// a day or makes us hammer.
	parkMin = time.Second
	parkMax = time.Hour

	// signalMissesMax bounds the repositories that were fetched for a signal and held none, at about
	// 100 bytes each; signalMissFor is how long another such fetch counts as one more in a row.
	signalMissesMax = 64 << 10
	signalMissFor   = time.Hour

	// lagsMax is how often we come back to a host that has an older rev than was announced, before we
	// believe the host: over a quarter of an hour with the default delays.
	lagsMax = 4

	// latestBodyMax bounds an answer of getLatestCommit: a JSON object with a CID and a rev.
	latestBodyMax = 4 << 10

	// goneRecheck is the delay after which the host of an unavailable repository is asked again,
	// and goneRecheckMax the delay for one that has been gone for long: 8 million of them make
	// three requests a second, to all hosts together. goneRecheck is also the longest delay for a
	// repository whose copies are refused each time, since each may cost gigabytes.
	goneRecheck    = 24 * time.Hour
	goneRecheckMax = 28 * 24 * time.Hour
	// A repository becomes gone after missingMax answers of RepoNotFound; if we hold a copy, these
	// must span hideSpan, since hosts that restart, restore a backup or answer through a proxy may
	// report RepoNotFound for repositories that they serve a moment later. A copy is wiped after
	// missingMax answers over missingSpan.
	missingMax  = 3
	hideSpan    = time.Hour
	missingSpan = 72 * time.Hour

	// retryPage is how many due rows are requeued before others get a turn.
	retryPage = 256
	// sleepMax bounds every sleep, so that a stepped clock is noticed.
	sleepMax = time.Minute
)
