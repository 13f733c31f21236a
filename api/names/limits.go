package names

import "time"

const (
	// lookupsMax bounds the lookups at a time, of which one client has at most three quarters. Each
	// has a socket or two, and some 20 KiB. A client whose names all time out holds its rate times
	// lookupTimeout, 25, so that it takes ten of them to keep out others.
	lookupsMax = 256
	// turnWait is how long a lookup waits for its turn.
	turnWait = time.Second

	// A client may look up clientRate names a second that are not in the cache, after a burst of
	// clientBurst: a page that shows an account names a few. siteRate bounds the lookups of names
	// below one site for all clients together; all handles of a hosting service are one site.
	// allRate bounds all lookups.
	clientRate, clientBurst = 5, 25
	siteRate, siteBurst     = 20, 100
	allRate, allBurst       = 100, 200
	// ratesMax bounds the clients and the sites whose rate is remembered: 10,000 × 200 bytes. A
	// forgotten client or site gets a new burst.
	ratesMax = 10_000

	// lookupTimeout bounds one lookup. DNS has half of it, so that a slow one leaves time for HTTP.
	lookupTimeout = 5 * time.Second
	// wellKnownBytesMax bounds the text at a host: a DID with a host name takes 261 bytes.
	wellKnownBytesMax = 2 << 10
	// didBytesMax bounds a DID that a handle leads to or that is looked up: did:web: and a host name.
	didBytesMax = 8 + 253

	// cacheMax bounds the handles in the cache, 300 bytes each.
	cacheMax = 50_000
	// The cache keeps a handle that leads to a DID for foundFor, an hour as on the reference
	// servers.
	foundFor = time.Hour
	// missingFor is shorter, for a handle that leads to no DID: its owner may add the record, and
	// then look.
	missingFor = 5 * time.Minute
	// A failure is kept for failedFor, so that a dead host costs one timeout a minute.
	failedFor = time.Minute
)
