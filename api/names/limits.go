package names

import "time"

const (
	// lookupsMax bounds the lookups at a time, of which one client has at most three quarters. Each
	// has a socket or two, and some 20 KiB. A client whose names all time out holds its rate times
	// lookupTimeout, 25, so that it takes ten of them to keep out others.
	lookupsMax = 256
	// turnWait is how long a lookup waits for its turn.
	turnWait = time.Second

	// A client looks up clientRate names a second that are not in the cache, after a burst of
	// clientBurst: a page that shows an account names a few. Names below one site are looked up
	// siteRate times a second, whatever clients do: a hoster with a million handles has one. All
	// together are allRate.
	clientRate, clientBurst = 5, 25
	siteRate, siteBurst     = 20, 100
	allRate, allBurst       = 100, 200
	// ratesMax bounds the clients and the sites whose rate is remembered: 10,000 × 200 bytes. One
	// that is forgotten has its burst again.
	ratesMax = 10_000

	// lookupTimeout bounds one lookup. DNS has half of it, so that a slow one leaves time for HTTP.
	lookupTimeout = 5 * time.Second
	// wellKnownBytesMax bounds the text at a host: a DID with a host name takes 261 bytes.
	wellKnownBytesMax = 2 << 10
	// didBytesMax bounds a DID that a handle leads to: did:web: and a host name.
	didBytesMax = 8 + 253

	// cacheMax bounds the handles in the cache, 300 bytes each.
	cacheMax = 50_000
	// A handle that leads to a DID does so for foundFor. The reference servers take an hour too.
	foundFor = time.Hour
	// A handle that leads nowhere is asked for again after missingFor: accounts are told to add the
	// record, and then look.
	missingFor = 5 * time.Minute
	// A failure is kept for failedFor, so that a host that does not answer costs one timeout in it.
	failedFor = time.Minute
)
