package discover

import "time"

// Limits on what comes from outside, and on what waits in memory.
const (
	// sleepMax bounds every sleep, so that a stepped clock is noticed.
	sleepMax = time.Minute

	// crawlLocksMax bounds the repositories that one batch of a page locks: about 2 ms of work.
	crawlLocksMax = 100

	// passesMax bounds the hosts reconciled at a time; other hosts wait for their turn.
	passesMax = 16
	// readRest is the pause between two reads of the cursors of all reconciliations, as a multiple
	// of the duration of a read: 16,000 cursors take some 20 ms.
	readRest = 19

	crawlPause    = time.Second
	crawlKnown    = 100 * time.Millisecond // if no account was new: cursors may go in circles
	crawlRetryMax = 5 * time.Minute
	crawlIdle     = time.Hour // of a source that this mode does not use; a new filter wakes it
	// crawlListsMax is how many lists of one source are read at a time, each by one request: 64
	// pages of 4 MiB at worst, and 16 of 200 KiB a second. After visitPagesMax pages another list
	// gets a turn.
	crawlListsMax = 64
	visitPagesMax = 16
	// crawlHostsMax bounds the hosts of a relay that are listed, at about 300 bytes of memory and
	// 100 of disk each: 15 MiB. The network has some thousands.
	crawlHostsMax = 50_000
	// crawlHostRetryMax is the longest pause after failures of a host that a relay names,
	// crawlBannedAgain the pause after a ban.
	crawlHostRetryMax = time.Hour
	crawlBannedAgain  = time.Hour
	// A rev that is younger than lagAge may be ahead of the firehose too: its event is awaited for
	// lagGrace.
	lagAge   = 5 * time.Minute
	lagGrace = 5 * time.Second

	// Of the places for lists, one in untriedShare is for hosts that have not been asked yet, and
	// one in doubtedShare for hosts that fail or whose pages take longer than crawlSlow. At least a
	// quarter is left to other hosts when all of these hang until their queries time out.
	untriedShare = 2
	doubtedShare = 4
	crawlSlow    = 5 * time.Second
	// untriedHaste divides Options.IdleTimeout for the first request of a host's list. On a new store
	// every host is untried, and a hanging host holds its place until the timeout. A slow host is
	// asked again, as a doubted one, with the whole timeout.
	untriedHaste = 6

	// comparePagesMin is the least number of pages that may be read of a listing that is only
	// compared with the stored rows. The limit is otherwise the number of repositories known at the
	// host: beyond it, asking for each repository takes fewer requests than reading on.
	comparePagesMin = 10

	// roundsMax bounds the sets of bits that record which repositories listings name, of 5 MiB each
	// for 40 million repositories. A reconciliation that finds no set free is retried after
	// joinAgain.
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

	// describeMax is how many accounts of a page are asked about at a time.
	describeMax = 8
	// describeTries is how often a page waits for a failing host before it postpones the remaining
	// accounts: by laterBase at first, doubling up to describeRetryMax. At most describeRetriesMax
	// accounts are remembered, at 100 bytes each; the next pass names the others again.
	describeTries      = 5
	laterBase          = 15 * time.Minute
	describeRetryMax   = 24 * time.Hour
	describeRetriesMax = 100_000
)
