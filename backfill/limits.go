package backfill

import "time"

// Limits on what comes from outside, and on what waits in memory.
const (
	// readyMin and readyMax bound how many rows of one queue are read ahead, at about 100 bytes
	// each. A read skips the rows of the host that are in flight, so the more are in flight, the
	// more are read ahead.
	readyMin = 32
	readyMax = 1024

	// resolvedMax bounds the resolved repositories that wait in memory for a permit of one host,
	// and resolvedAllMax those of all hosts: 4,096 of about 400 bytes are 1.6 MiB.
	resolvedMax    = 32
	resolvedAllMax = 4096

	// movesPerSecond bounds how fast rows are moved to the queue of a busy host. Each move is a
	// small write of about 20 µs: 2 % of a core. 10,000 rows of one dead host at the front of the
	// queue are moved in ten seconds.
	movesPerSecond = 1000

	// idlePause is how long nothing must be left to fetch before imports are flipped early. A
	// trickle of repositories then costs at most 20 small batches a second.
	idlePause = 50 * time.Millisecond

	// rescanEvery bounds how often a wake-up scans the queues that grew, and rescanAllEvery how
	// often it scans all queues that hold rows: about 0.4 µs a host.
	rescanEvery    = 50 * time.Millisecond
	rescanAllEvery = time.Second

	// diffOpsMax and diffBytesMax bound one batch of a diff. 500 reads hold the lock of the DID for
	// 5 ms, cold reads for 50 ms, and live commits of the DID wait; 4 MiB is well below a memtable.
	diffOpsMax   = 500
	diffBytesMax = 4 << 20

	// parkMin and parkMax clamp the delay that a server may request, so that no header stops
	// requests for a day or makes Cistern send requests in a busy loop.
	parkMin = time.Second
	parkMax = time.Hour

	// signalMissesMax bounds the remembered repositories that were fetched for a signal and had
	// none, at about 100 bytes each. signalMissFor is how long the next such fetch still counts as
	// consecutive.
	signalMissesMax = 64 << 10
	signalMissFor   = time.Hour

	// lagsMax is how often a host that serves an older rev than was announced is asked again before
	// it is believed: over a quarter of an hour with the default delays.
	lagsMax = 4

	// latestBodyMax bounds an answer of getLatestCommit: a JSON object with a CID and a rev.
	latestBodyMax = 4 << 10

	// goneRecheck is the delay after which the host of an unavailable repository is asked again,
	// and goneRecheckMax the delay for a repository that has been gone for a long time: 8 million
	// such repositories cause three requests a second, to all hosts together. goneRecheck is also
	// the longest delay for a repository whose copies are rejected each time, since each copy may
	// cost gigabytes.
	goneRecheck    = 24 * time.Hour
	goneRecheckMax = 28 * 24 * time.Hour
	// A repository becomes gone after missingMax answers of RepoNotFound. If a copy is stored,
	// these must span hideSpan, since hosts that restart, restore a backup or answer through a
	// proxy may report RepoNotFound for repositories that they serve a moment later. A copy is
	// wiped after missingMax answers over missingSpan.
	missingMax  = 3
	hideSpan    = time.Hour
	missingSpan = 72 * time.Hour

	// retryPage is how many due rows are requeued in one step, with one wait for the disk.
	retryPage = 256
	// sleepMax bounds every sleep, so that a change of the clock is noticed.
	sleepMax = time.Minute
)
