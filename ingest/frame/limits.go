package frame

// Limits on what comes from outside. Exceeding one is repo.ErrInvalid.
const (
	// BytesMax bounds a message: the protocol's 5 MiB, of which blocks take at most 2 MB. The rest of a longer
	// one is not kept in memory.
	BytesMax = 5 << 20

	// opsMax is five times what the lexicon allows: so many cost 104 KiB, and whoever checks commits can still
	// say that they are too many.
	opsMax = 1000

	// opBytesMin is what an operation takes at least: a map of two keys, action and path, and two
	// empty strings. So much memory is prepared as a message can fill.
	opBytesMin = 1 + 7 + 1 + 5 + 1

	// seqMax is the largest integer of the data model.
	seqMax = 1<<53 - 1

	// didBytesMax is the protocol's.
	didBytesMax = 2048

	// wordBytesMax bounds revs (13 bytes), actions, statuses, names of infos and errors.
	wordBytesMax = 128

	// handleBytesMax: a domain name of 253 bytes, rounded up.
	handleBytesMax = 256

	// timeBytesMax bounds a datetime; what is longer is none.
	timeBytesMax = 64

	// messageBytesMax is where the text for the log is cut off.
	messageBytesMax = 512

	// linkBytesMax bounds the CID in a link, with the 0x00 before it; the usual one takes 37 bytes.
	linkBytesMax = 101

	// depthMax bounds how deeply the fields that are passed over nest; ours nest three deep.
	depthMax = 64
)
