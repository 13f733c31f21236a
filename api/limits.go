package api

import "time"

// Limits of requests. The defaults of Options bound the rest.
const (
	// connsMax bounds open connections of each listener: 4,096 × about 12 KiB of buffers and
	// stacks is 48 MiB.
	connsMax = 4096
	// connsReserve is how many connections are reserved for clients that hold fewer than
	// connsShare. 16 clients with a share each fill the reserve; one client alone gets 3,072.
	connsReserve = connsMax / 4
	connsShare   = 64
	// A record of 1 MiB can become 14 MiB of JSON: {"$bytes":""}, for each byte.

	// queriesMax bounds the weight of the queries computed at a time. A query has weight 1 unless
	// it lists. The worst query holds one record as JSON, and half of it when its buffer grows: 32
	// × 25 MiB = 800 MiB. A usual query holds 1 KiB.
	queriesMax = 32
	// listWeight is the weight of a list. The worst list holds 25 records of 1 MiB and, twice when
	// its buffer grows, a page of 8 MiB and one record as JSON (package atproto), 8 × 69 MiB = 550
	// MiB; the usual page is 50 KiB.
	listWeight = 4
	// largeAnswer is the size from which unread answers share largeBytesMax. Smaller answers are
	// bounded by 4,096 connections × 64 KiB = 256 MiB.
	largeAnswer   = 64 << 10
	largeBytesMax = 128 << 20
	// codedBytesMin is the size from which answers are compressed: shorter ones fit one packet.
	codedBytesMin = 1 << 10
	// queryWait is how long a query waits for its turn before it is refused.
	queryWait = 2 * time.Second

	// headerBytesMax bounds request headers: a filter of 10,000 DIDs in a URL takes 480 KB.
	headerBytesMax = 512 << 10
	// largeHeader is the size from which headers share largeHeadersMax, 32 × 1.5 MiB when they are
	// parsed; browsers send 1 to 2 KiB, and 4,096 × 16 KiB are 64 MiB.
	largeHeader     = 16 << 10
	largeHeadersMax = 32
	// headerTimeout is how long a client may take to send the headers.
	headerTimeout = 10 * time.Second
	// bodyTimeout is how long a client may take to send a request, 8 MiB at 140 KB/s.
	bodyTimeout = time.Minute
	// answerTimeout is how long a client may take to read an answer, 16 MiB at 280 KB/s.
	answerTimeout = time.Minute
	// profileTimeout is answerTimeout for the private listener, where a client chooses the duration
	// of a profile.
	profileTimeout = 5 * time.Minute
	// idleTimeout closes unused connections.
	idleTimeout = 2 * time.Minute

	// formBytesMax bounds the form that has the admin token.
	formBytesMax = 4 << 10

	// frontEvents bounds the events that are read for the examples of the page of the public
	// listener: 32 × up to 1 MiB, and usually 32 × 300 bytes from memory.
	frontEvents = 32
	// frontCache is how long caches may keep that page.
	frontCache = "public, max-age=5"

	// statusAge is how long all visitors of the status page get the same figures, and how long caches
	// may keep them.
	statusAge = 5 * time.Second
	// statusForms bounds the compressed forms of these figures that are kept, 8 × 20 KB: one for each
	// header Accept-Encoding, of which browsers send a few.
	statusForms = 8
	// statusFormName bounds such a header: browsers send some 30 bytes.
	statusFormName = 100
)
