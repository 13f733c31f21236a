package condition

import "time"

const (
	// lookEvery is the default of Options.Every.
	lookEvery = 2 * time.Second
	// readGrace is how long a condition stays as it was while its measure cannot be read.
	readGrace = time.Minute
	// errorBytesMax bounds the error of a reading that is shown.
	errorBytesMax = 256

	// burstMax bounds how many bytes pass at once below a limit of bytes a second: reads of bodies
	// take 4 KiB to 32 KiB, so that many readers take turns.
	burstMax = 1 << 20

	// diskSlack divides the reserve: this share more must be free before imports resume. Imports
	// that resume at the reserve itself would take its first bytes, and pause again.
	diskSlack = 20
	// slack divides other limits likewise.
	slack = 4
)
