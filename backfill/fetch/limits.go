package fetch

import "time"

// Limits on what comes from hosts, and on what is held in memory.
const (
	// expandSlack and expandRatio bound what a compressed body may become: CIDs do not compress,
	// and each block brings one of 36 bytes, twice; real repositories shrink 2 to 5 times.
	expandSlack = 16 << 20
	expandRatio = 100

	// shareRatio bounds how much larger than its CAR a repository may become when blocks that
	// records share are counted for each: a block of 1 MiB under 200,000 keys fits into 15 MB and
	// makes 200 GB. Even thousands of equal records of 500 bytes, plus 60 bytes of tree each, stay
	// below ten.
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

	// A transfer is long after longAfter. Long transfers may hold longShare percent of the permits
	// while repositories wait: hosts that send just enough for hours (Options.FetchTimeout) must
	// not stop all fetches.
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

	// sparseTimeMax is how long fetching the parts of a repository may take, in many short answers.
	// After that the whole is fetched.
	sparseTimeMax = 5 * time.Minute
	// sparseTriesMax is how often in a row a fetch of parts may fail before the whole is fetched,
	// and sparseRootsMax how often the repository may change during one.
	sparseTriesMax = 2
	sparseRootsMax = 4
	// sparseLayerMin is the layer of the root at or below which a tree, of some hundred records at
	// most, is one answer.
	sparseLayerMin = 2
	// sparseRecordsMin is how few records are not worth a part when they were all held.
	sparseRecordsMin = 500
	// sparseGuessMin is how many subtrees, two for each range not counted, must be left to look into
	// before it is guessed how much is wanted.
	sparseGuessMin = 8
	// blocksPerAsk is how many blocks are asked for at a time: 65 bytes each in a URL, of which many
	// servers take 8 KiB.
	blocksPerAsk = 100
	// proofBlocksMax bounds a proof: the commit, a node for each layer and a record.
	proofBlocksMax = 64
	// answerBlockBytes bounds a block in an answer: no record and hardly any node is larger than
	// 1 MiB.
	answerBlockBytes = 2<<20 + 64
	// wholeOnlyFor is how long a host is not asked for parts after it reported that it sends none,
	// or broke them off.
	wholeOnlyFor = time.Hour
	// wholeOnlyMax bounds each of the three sets of hosts and repositories that are fetched whole, at
	// about 100 bytes an entry. A set that is full forgets the entry that was used least recently.
	wholeOnlyMax = 16 << 10
)
