package frame

// Limits on what comes from outside. Exceeding one is repo.ErrInvalid.
const (
	// BytesMax bounds a message: the protocol's 5 MiB, of which blocks take at most 2 MB. The rest
	// of a longer message is not kept in memory.
	BytesMax = 5 << 20

	// opsMax is five times what the lexicon allows, at 104 KiB: the check of a commit then reports
	// that it has too many.
	opsMax = 1000

	// opBytesMin is the size of the smallest operation: a map with the keys action and path, and
	// two empty strings. It bounds the memory allocated for a claimed number of operations.
	opBytesMin = 1 + 7 + 1 + 5 + 1

	// seqMax is the largest integer of the data model.
	seqMax = 1<<53 - 1

	// didBytesMax bounds a DID, as the protocol does.
	didBytesMax = 2048

	// wordBytesMax bounds revs (13 bytes), actions, statuses, names of infos and errors.
	wordBytesMax = 128

	// handleBytesMax: a domain name of 253 bytes, rounded up.
	handleBytesMax = 256

	// timeBytesMax bounds a datetime. A longer text is not a datetime.
	timeBytesMax = 64

	// messageBytesMax bounds a text for the log. The rest is cut off.
	messageBytesMax = 512

	// linkBytesMax bounds the CID in a link, with the leading 0x00; the usual CID takes 37 bytes.
	linkBytesMax = 101

	// depthMax bounds the nesting of skipped fields; those of the lexicons nest three deep.
	depthMax = 64
)
