package intake

const (
	// copyBytesMax is the size up to which a CAR of an archive is copied to memory, so that the next
	// is read while it is verified: 32 workers hold 32 MiB. Larger ones are read one at a time.
	copyBytesMax = 1 << 20
	// largeBytesMin is the size from which CARs are read and stored one at a time: the indexes of
	// several would exceed what they share.
	largeBytesMin = 128 << 20
	// entryBytesMax bounds a file of an archive, CAR or not: skipping it takes as long as reading it.
	entryBytesMax = 16 << 30
	// othersMax bounds the files of a source that are no CARs. An export has one, its manifest.
	othersMax = 1 << 20
	// nameBytesMax is how much of a name is shown, and reasonBytesMax of a reason.
	nameBytesMax   = 300
	reasonBytesMax = 600
	// windowBytesMax bounds the window of a zstd archive: what zstd itself accepts by default.
	windowBytesMax = 128 << 20
	// failuresMax is how many repositories in a row may fail for no fault of their CARs before the
	// run ends: the source, the disk or the directory of identities has failed.
	failuresMax = 64
)
