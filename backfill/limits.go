package backfill

import "time"

// Limits on what comes from outside, and on what waits in memory.
const (
	// hostsMax bounds the hosts of which parts are not asked for, and the repositories to be fetched whole,
	// at about 100 bytes each. The network has some thousands of hosts.
	hostsMax = 16 << 10

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

	// expandSlack and expandRatio bound what a compressed body may become: CIDs do not compress,
	// and each block brings one of 36 bytes, twice; real repositories shrink 2 to 5 times.
	expandSlack = 16 << 20
	expandRatio = 100

	// shareRatio bounds how much larger than its CAR a repository may become when blocks that records
	// share are counted for each: a block of 1 MiB under 200,000 keys fits into 15 MB and makes 200 GB.
	// Even thousands of equal records of 500 bytes, beside 60 of tree each, stay below ten.
	shareRatio = 16

	// hiddenMax bounds the keys that are no valid collection and record key. Lists step over them,
	// at about 1 µs each.
	hiddenMax = 100_000

	// collectionsMax bounds the collections of a repository. Each is a row of the batch that makes it
	// visible, and about 60 bytes until then; the largest repositories have some hundreds.
	collectionsMax = 10_000

	// carBytesCeiling is the upper limit of Options.CARBytesMax: the range that positions in a CAR
	// can address (repo.CAROptions). The blocks of a repository must have at least bytesPerBlock on
	// average, so that CARBytesMax also bounds their number.
	carBytesCeiling = 16 << 30
	bytesPerBlock   = 512

	// progressBytes must arrive in each Options.IdleTimeout: at 30 s that is 2 KiB/s.
	progressBytes = 64 << 10

	// baseBytes is what every task may use without asking: one chunk to read into, one to keep.
	baseBytes = 512 << 10

	// A transfer is long after longAfter, and long ones may take longShare percent of the permits while others wait: hosts that
	// send just enough for Options.FetchTimeout, hours, must not stop all fetches.
	longAfter = 5 * time.Minute
	longShare = 75

	// zstdWindowMax bounds the window of a zstd decoder: RFC 9659 allows encoders of HTTP bodies 8
	// MiB. A decoder uses zstdBytes, for the window and some buffers. At most zstdBodiesMax bodies
	// are open at a time, 34 MiB, or as many as take a third of what tasks share of
	// Options.MemoryBytes; other requests offer gzip only, whose window has 32 KiB.
	zstdWindowMax = 8 << 20
	zstdBytes     = 8<<20 + 512<<10
	zstdBodiesMax = 4

	// indexBytesMax bounds the indexes of all CARs: two of 8,388,608 blocks at a time, or one of
	// 250,000 for each of 64 tasks. One takes 22 to indexPerBlock bytes a block, with what it left
	// behind when it grew. Options.CARBlocksMax raises it, for one alone must fit.
	indexBytesMax = 512 << 20
	indexPerBlock = 43

	// idleChunkBytes bounds the memory kept for later CARs: 32 tasks of baseBytes.
	idleChunkBytes = 16 << 20

	// diffOpsMax and diffBytesMax bound one batch of a difference: 500 reads hold the DID's lock for 5 ms,
	// cold ones for 50, and live commits of the DID wait; 4 MiB is well below a memtable.
	diffOpsMax   = 500
	diffBytesMax = 4 << 20

	// parkMin and parkMax clamp what a host may ask of us, so that no header silences us for
	// a day or makes us hammer; parkDefault stands for a 429 that names no time.
	parkMin     = time.Second
	parkMax     = time.Hour
	parkDefault = time.Minute

	// sparseTimeMax is how long fetching the parts of a repository may take, in many short answers.
	// After that the whole is fetched.
	sparseTimeMax = 5 * time.Minute
	// sparseTriesMax is how often in a row a fetch of parts may fail before the whole is fetched, and sparseRootsMax how
	// often a repository may move on during one.
	sparseTriesMax = 2
	sparseRootsMax = 4
	// sparseLayerMin is the layer of the root at or below which a tree, of some hundred records at most, is one answer.
	sparseLayerMin = 2
	// sparseRecordsMin is how few records are not worth a part when they were all held.
	sparseRecordsMin = 500
	// sparseGuessMin is how many subtrees, two for each range not counted, must be left to look into before it is guessed
	// how much is wanted.
	sparseGuessMin = 8
	// blocksPerAsk is how many blocks are asked for at a time: 65 bytes each in a URL, of which many servers take 8 KiB.
	blocksPerAsk = 100
	// proofBlocksMax bounds a proof: the commit, a node for each layer and a record.
	proofBlocksMax = 64
	// answerBlockBytes bounds a block in an answer: no record and hardly any node is larger than 1 MiB.
	answerBlockBytes = 2<<20 + 64
	// wholeOnlyFor is how long a host is not asked for parts after it said that it sends none, or broke them off.
	wholeOnlyFor = time.Hour

	// signalMissesMax bounds who is remembered to have been fetched in vain for a signal, and signalMissFor says for how long another
	// such fetch counts as one more in a row.
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

	// crawlLocksMax bounds the repositories that one batch of a page locks: about 2 ms of work.
	crawlLocksMax = 100

	// passesMax bounds the hosts reconciled at a time; others wait for their turn.
	passesMax = 16
	// readRest is the pause between two reads of the cursors of all reconciliations, as a multiple
	// of the duration of a read: 16,000 cursors take some 20 ms.
	readRest = 19
	// passPagesMax ends a list that invents accounts without end: at crawlPage that is a billion
	// repositories.
	passPagesMax = 1 << 20

	// crawlPage is what listRepos gives at most; at 200 bytes a row a page has 200 KiB.
	crawlPage     = 1000
	crawlBodyMax  = 4 << 20
	cursorMax     = 4 << 10
	crawlPause    = time.Second
	crawlKnown    = 100 * time.Millisecond // after a page of nothing new: cursors may go in circles
	crawlRetryMax = 5 * time.Minute
	crawlTimeout  = time.Minute
	crawlIdle     = time.Hour // a source that discovers nothing in this mode: a change of the filter wakes it
	// emptyPagesMax ends a list whose pages name nobody. Relays leave out who is not active, page by page.
	emptyPagesMax = 10
	// crawlListsMax is how many lists of one source are read at a time, each by one request: 64 pages of 4 MiB
	// at worst, and 16 of 200 KiB a second. visitPagesMax is when another gets a turn.
	crawlListsMax = 64
	visitPagesMax = 16
	// crawlHostsMax bounds the hosts that a relay has us list, at about 300 bytes of memory and 100 of disk each: 15 MiB.
	// The network has some thousands.
	crawlHostsMax = 50_000
	// crawlHostRetryMax is the longest that one of them is left alone for its failures, crawlBannedAgain for a ban.
	crawlHostRetryMax = time.Hour
	crawlBannedAgain  = time.Hour
	// A list that is ahead of us by a rev younger than lagAge may be ahead of the firehose too, which has lagGrace to
	// come by before we ask.
	lagAge   = 5 * time.Minute
	lagGrace = 5 * time.Second

	// Of the places for lists, one in untriedShare is for hosts that have not been asked yet, and
	// one in doubtedShare for hosts that fail or whose pages take longer than crawlSlow. At least a
	// quarter is left to other hosts when all of these hang until crawlTimeout.
	untriedShare = 2
	doubtedShare = 4
	crawlSlow    = 5 * time.Second
	// untriedHaste divides Options.IdleTimeout for the first request of a host's list. On a new store
	// every host is untried, and a hanging host holds its place until the timeout. A slow host is
	// asked again, as a doubted one, with the whole timeout.
	untriedHaste = 6

	// A pass that named nothing, or less than half of what the previous one named, is repeated
	// after thinAgain, doubling. thinMax repetitions take 8.5 hours; then the list is believed.
	thinAgain = time.Minute
	thinMax   = 10

	// comparePagesMin is the least number of pages that may be read of a listing that is only
	// compared with our rows. The limit is otherwise the number of repositories that we know there:
	// beyond it, asking for each repository takes fewer requests than reading on.
	comparePagesMin = 10

	// roundsMax bounds the sets of bits that record what listings show, of 5 MiB each for 40
	// million repositories. A reconciliation that finds no room in one is retried after joinAgain.
	roundsMax = 4
	joinAgain = time.Minute
	// absentPage is how many absent repositories are queued at a time, and absentQueueMax the
	// length of a host's queue at which no more are added. The scan is then repeated, up to
	// absentScansMax times, so that a round checks 16,000 repositories of one host.
	absentPage     = 512
	absentQueueMax = 1000
	absentScansMax = 16
	absentPause    = time.Second
	// absentWait is how long a scan of all rows waits for listings under way, to serve them too.
	// absentRest is the pause between two scans, as a multiple of the duration of a scan: 5 % of
	// one core however many rows there are.
	absentWait    = 5 * time.Minute
	absentRest    = 19
	absentRestMax = 24 * time.Hour

	// describeMax is how many accounts of a page are asked about at a time; an answer has a DID document and NSIDs.
	describeMax     = 8
	describeBodyMax = 2 << 20
	// describeTries is how often a page waits for a host that is out of order before it goes on and leaves those that are left
	// for later: after laterBase, doubling to describeRetryMax. At most describeRetriesMax of 100 bytes are remembered; the next pass names
	// the others again.
	describeTries      = 5
	laterBase          = 15 * time.Minute
	describeRetryMax   = 24 * time.Hour
	describeRetriesMax = 100_000
)
