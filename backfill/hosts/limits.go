package hosts

import "time"

const (
	// hostsMax bounds the hosts remembered, at about 300 bytes each, and 200 more for the quotas of
	// the reference PDS: 8 MiB. The network has some thousands.
	hostsMax = 16 << 10
	// evictTries is how many hosts are checked for one without faults once an idle one was found,
	// and evictEvery how often all are checked while none is idle.
	evictTries = 64
	evictEvery = 50 * time.Millisecond
	// fullPause is how long a request waits for a place in the table.
	fullPause = time.Second

	// admitMax is how long a request that was granted waits for its host's windows.
	admitMax = 2 * time.Second

	// queryTimeout bounds a query of no repository being fetched, to the last byte of its answer.
	queryTimeout = time.Minute
	// DescribeBodyMax bounds an answer of describeRepo: a DID document and the NSIDs of collections.
	DescribeBodyMax = 2 << 20
	// refusedPause is the pause after a 429 that names none.
	refusedPause = time.Minute

	// noteEvery is how often what was learnt of hosts is written.
	noteEvery = 30 * time.Second
)
