package backlinks

import "cistern/store/linkindex"

// Limits of requests.
const (
	// limitUsual and limitMax are those of the running service. Its lexicon states 16 and 100.
	limitUsual, limitMax = 100, 1000
	// didsMax bounds the accounts that a request names.
	didsMax = linkindex.DIDsMax
	// arrivalMax bounds the numbers of a cursor: the index gives smaller ones.
	arrivalMax = 1<<48 - 2
	// othersMax bounds the other subjects that a request names.
	othersMax = 1000
	// scanRecordsMax bounds the linking records that a page of getManyToMany, or a round of
	// getManyToManyCounts, reads: 4,096 × some 20 µs.
	scanRecordsMax = 4096
	// windowRounds bounds the rows of the index in one window of getManyToManyCounts: 4 × 4,096. A
	// subject with fewer linking records is counted as a whole.
	windowRounds = 4
	// scanBytesMax bounds the bodies of the linking records that a request reads. Many records are as
	// large as the protocol allows only if this is meant: 16 of them.
	scanBytesMax = 16 << 20
	// windowBytesMax bounds the memory of the subjects and accounts of one window.
	windowBytesMax = 8 << 20
	// subjectBytes and accountBytes are what a subject, and an account of it, take in a map beside
	// their text.
	subjectBytes, accountBytes = 200, 80
)
