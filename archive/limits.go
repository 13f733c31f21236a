package archive

import "time"

// Limits of segments. A record has at most 2 MiB (ingest/repo).
const (
	// segmentBytes is the size at which a segment ends.
	segmentBytes = 16 << 20
	// frameBytes and frameEvents end a frame: one request to a bucket brings some thousand events,
	// and one rare event costs decoding 1 MiB.
	frameBytes  = 1 << 20
	frameEvents = 4096
	// frameBytesMax bounds a frame, before and after compression: one event may be added to almost
	// frameBytes.
	frameBytesMax = 4 << 20
	// framesMax and listsMax end a segment: the collections of a hostile repository are many, and
	// up to 317 bytes each. The last frame may add frameEvents of them.
	framesMax = 4096
	listsMax  = 4096
	// indexBytesMax is above what framesMax and listsMax allow.
	indexBytesMax = 16 << 20

	// readersMax bounds the pages that read segments at a time, each with a frame of up to
	// frameBytesMax and what it decodes to.
	readersMax = 4
	// fetchTimeout bounds the reading of a frame or an index, and sinceTimeout bounds FirstSince,
	// which has no context: a bucket that hangs must not hold the few readers, which all consumers
	// share.
	fetchTimeout = time.Minute
	sinceTimeout = time.Minute
	// framesKept and indexesKept are how many stay in memory: usually some 40 MiB and 2 MiB.
	framesKept  = 16
	indexesKept = 64
	// pageFrames bounds the frames that one page decodes, and pageLooked those that it looks at in
	// indexes. Then it may end without an event.
	pageFrames = 8
	pageLooked = 4096
	// buildIDs is how many ids are read at a time from the log for a segment.
	buildIDs = 2000
)
