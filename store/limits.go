package store

// Limits on what waits.
const (
	// bufferBytesMax bounds what is buffered of one repository while a copy of it is made: 16 MiB are some 3,000 commits of
	// 5 KiB, which an account that writes ten a second makes in five minutes. They are small rows on disk, whose number
	// needs no limit of its own.
	bufferBytesMax = 16 << 20
	// bufferTotalMax bounds what is buffered of all, on disk: 64 repositories at their limit. In
	// memory each repository takes some 150 bytes. Batches made at the same moment may each go up to it.
	bufferTotalMax = 1 << 30

	// bufferPage bounds the repositories of one batch that drops what a crash left.
	bufferPage = 1000

	// relistBatchBytes bounds the listing rows written in one batch, about 100,000 ops.
	relistBatchBytes = 2 << 20
)
