package admin

import "time"

// Limits of requests and answers.
const (
	// bodyBytesMax bounds the body of a change: 100,000 DIDs take 4.5 MB.
	bodyBytesMax = 8 << 20
	// bodyItemsMax bounds the items of the body of a change.
	bodyItemsMax = 100_000
	// objectBytesMax bounds the body of a change that is one object.
	objectBytesMax = 64 << 10
	// copyBytesMax bounds what a command states about a copy or its result: an error of 1,024 bytes,
	// each escaped in six, and a name.
	copyBytesMax = 8 << 10
	// subscriptionBytesMax bounds the body that makes a durable subscription: 10,000 collections
	// and 10,000 DIDs of 50 bytes.
	subscriptionBytesMax = 1 << 20
	// filterBytesMax bounds a change of the filter: 30,000 items of 130 bytes.
	filterBytesMax = 4 << 20
	// mistakesMax bounds the mistakes that one answer names: 100 × 500 bytes, or DIDs of 2 KiB.
	mistakesMax = 100
	// sourcesMax bounds the sources that can be added: each has two goroutines, a connection and a
	// message of up to 5 MiB.
	sourcesMax = 1000
	// crawlsMax bounds the crawl sources that can be added: each asks for up to 64 pages at a time.
	crawlsMax = 100
	// changesMax is how many rows one batch changes, under as many locks.
	changesMax = 200

	// collectionsShown bounds the collections of one repository whose counts are shown: an account can
	// invent any number.
	collectionsShown = 1000

	// overviewRows bounds the hosts, the sources and the alerts of an overview, and overviewLines its
	// log lines: 50 × 500 bytes each, and 200 × 200.
	overviewRows  = 50
	overviewLines = 200
	// firstFailureShown is how long a verdict notes that a backup by command failed at a destination
	// without a complete one.
	firstFailureShown = 24 * time.Hour
	// overviewShare bounds what it costs to keep costly parts of overviews new: they are renewed
	// when they are so many times as old as it took to compute them, and then take at most 0.5 % of
	// a processor.
	overviewShare = 200
	// overviewAge is how old these parts may be however quickly they are computed.
	overviewAge = 4 * time.Second
)
