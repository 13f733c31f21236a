package pages

import "time"

// Limits on what a host lists.
const (
	// entriesMax is the largest number of entries that listRepos sends: 200 KiB a page, at 200
	// bytes an entry.
	entriesMax = 1000
	bodyMax    = 4 << 20
	cursorMax  = 4 << 10
	// commasMax bounds the entries of a page, of 60 bytes each in memory. A correct page has some
	// 5000 commas.
	commasMax = 64 << 10

	// pagesMax ends a listing that invents accounts without end: at entriesMax that is a billion
	// repositories.
	pagesMax = 1 << 20
	// emptyMax empty pages in a row end a listing. Relays leave inactive accounts out of pages.
	emptyMax = 10
	// sampleMax is how many accounts of a page are remembered: 128 bytes a listing.
	sampleMax = 16

	// A pass that named nothing, or less than half of what the previous pass named, is repeated
	// after thinAgain, which doubles each time. thinMax repetitions take 8.5 hours; then the
	// listing is believed.
	thinAgain = time.Minute
	thinMax   = 10
)
