package store

// Limits on queues and buffers.
const (
	// bufferBytesMax bounds the commits buffered for one repository while it is copied: 16 MiB are
	// some 3,000 commits of 5 KiB, five minutes of an account that writes ten a second. They are
	// rows on disk, and their number needs no separate limit.
	bufferBytesMax = 16 << 20
	// bufferTotalMax bounds the commits buffered for all repositories, on disk: 64 repositories at
	// their limit. In memory each repository takes some 150 bytes. Concurrent batches may each go
	// up to the limit.
	bufferTotalMax = 1 << 30

	// bufferPage bounds the repositories of one batch that drops the buffers that a crash left.
	bufferPage = 1000

	// relistBatchBytes bounds the listing rows written in one batch, about 100,000 ops.
	relistBatchBytes = 2 << 20

	// recentBytes bounds the newest events kept in memory: some seconds of the whole network.
	recentBytes = 8 << 20
	// recentEventBytes is the approximate size of an event in memory, without its record.
	recentEventBytes = 300
	// recentIdleMax is the number of batches without a reader after which no events are kept.
	recentIdleMax = 1000
)
