package export

import "time"

// Limits of the memory and work of exports, and of their clients.
const (
	// turnsMax bounds the weight of the CARs that are sent at a time, 4 of repositories or 16 of
	// records. Each holds 3 MiB, and a view of the store that keeps deleted files on the disk.
	turnsMax = 16
	// repoWeight is the weight of a repository, of a part, and of blocks: it may read all rows.
	repoWeight = 4
	// proofWeight is the weight of a record: it reads all rows once for each commit.
	proofWeight = 1
	// turnWait is how long a request waits for its turn before it is refused.
	turnWait = 10 * time.Second
	// filesMax bounds the weight of the files that GET /export sends at a time. One of NDJSON, or an
	// archive, holds 8 MiB, one of Parquet a row group, up to 64 MiB of text and what its columns take
	// beside it.
	filesMax    = 4
	fileWeight  = 1
	codedWeight = 2
	// A part of the manifest of an archive has archiveRepos repositories, or those of about
	// archiveBytes: what a client receives again that goes on after a break.
	archiveRepos = 1000
	archiveBytes = 64 << 20
	// archivePartsMax bounds the parts of an archive, of 200 bytes each in memory: 10 million
	// repositories of the usual size, or 640 GB. What is left is for another archive.
	archivePartsMax = 10_000
	// heldBytesMax is how much of a CAR is held in memory until its size is known. A larger one is
	// made twice.
	heldBytesMax = 4 << 20
	// rowsMax bounds the parameter limit.
	rowsMax = 1_000_000_000
	// pieceBytes is how much is written at a time.
	pieceBytes = 64 << 10
	// A client has readGrace to begin to read a CAR, and must then read readRateMin bytes a second,
	// for readTimeMax at most: 900 MB at that rate.
	readGrace   = time.Minute
	readRateMin = 256 << 10
	readTimeMax = time.Hour

	// outlineBytesMax bounds the nodes of an outline, some 7,000 entries of 150 bytes. Of a tree of
	// a million records it has the layers from 4 up, so that what is below one of its entries is
	// 256 records on average, a quarter of a millisecond to read.
	outlineBytesMax = 1 << 20
	// nodeBookBytes is what an outline takes for a node beside its bytes.
	nodeBookBytes = 96
	// cacheBytesMax bounds the outlines that are kept: 64 of large repositories, and thousands of
	// small ones.
	cacheBytesMax = 64 << 20
	// cacheOutlinesMax bounds their number: the outline of an empty tree takes some 500 bytes.
	cacheOutlinesMax = 64 << 10
	// mismatchesMax bounds the repositories that are remembered not to agree with their commit, of
	// 200 bytes each.
	mismatchesMax = 4096
	// blocksMax bounds the CIDs of one getBlocks, 66 KB of a URL.
	blocksMax = 1000
	// namedMax bounds the missing CIDs that a refusal names.
	namedMax = 20
	// foundBytesMax bounds the tree nodes that one request of blocks holds, 24,000 of 330 bytes.
	foundBytesMax = 8 << 20
	// yieldSteps is the number of rows or records after which others may compute: less than a
	// millisecond.
	yieldSteps = 1024
)
