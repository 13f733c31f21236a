package store

// Limits on what waits. A fetch takes seconds, some minutes at worst, and an account rarely writes
// ten commits a minute.
const (
	// bufferCommitsMax and bufferBytesMax bound what is buffered of one repository.
	bufferCommitsMax = 256
	bufferBytesMax   = 4 << 20
	// bufferTotalMax bounds what is buffered of all, on disk: 64 repositories at their limit. In
	// memory each repository takes some 150 bytes. Batches made at the same moment may each go up to it.
	bufferTotalMax = 256 << 20

	// bufferPage bounds the repositories of one batch that drops what a crash left.
	bufferPage = 1000

	// relistBatchBytes bounds the listing rows written in one batch, about 100,000 ops.
	relistBatchBytes = 2 << 20
)
