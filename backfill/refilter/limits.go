package refilter

import "time"

const (
	// pageRows is how many rows that need a change are listed at a time. A row with its commit
	// takes 1 KiB.
	pageRows = 512
	// opsMax bounds one batch of a sweep or of a repository that is forgotten: live commits of the
	// repository wait while 500 reads hold the row's lock, for 5 ms, or for 50 ms if nothing is
	// cached.
	opsMax = 500
	// waitsBytesMax bounds the batches that are applied but not yet durable. At 150 MB/s they are
	// written in some 50 ms, so that a pass spends little time waiting for the disk.
	waitsBytesMax = 8 << 20
	// forgottenBytes is about the size of the batch that forgets a small repository: opsMax
	// records.
	forgottenBytes = 64 << 10
	// backlogMax and backlogHostMax bound the repositories that wait for a fetch at a time, of all
	// hosts and of one host: eight for each of 32 tasks. Their live commits wait with them, for
	// some minutes if the host answers.
	backlogMax     = 256
	backlogHostMax = 32
	// backlogWait is how long a round waits for a host that completes nothing, and backlogCheck how
	// often it looks: 256 rows are 2 ms.
	backlogWait  = 15 * time.Second
	backlogCheck = 100 * time.Millisecond
	// backlogDead is how long a host must complete nothing before its other repositories go to the
	// retry queue: a failing host is asked every five minutes, so it was asked at least twice by
	// then.
	backlogDead = 11 * time.Minute
	// roundPause is the pause between two rounds, doubling up to roundPauseMax: a scan of 40
	// million rows takes minutes.
	roundPause    = 100 * time.Millisecond
	roundPauseMax = 30 * time.Second
	// sleepMax bounds the wait for a changed filter, so that a lost wake-up is noticed.
	sleepMax = time.Minute
	// selectionsKept is how many of the newest selections rows may name after a pass over all
	// repositories. Rows that name older selections are rewritten even if nothing else in them
	// changes. The store keeps 4,096 selections, so that the filter can be changed 4,000 times
	// while one pass is running.
	selectionsKept = 64
)
