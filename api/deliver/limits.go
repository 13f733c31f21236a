package deliver

import "time"

// Limits of streams. The defaults of Options bound the rest.
const (
	// streamsReserve and streamsShare divide Options.SubscribersMax among clients: of 1,000 streams
	// one client gets 750, and the rest are reserved for clients with fewer than 25.
	streamsReserve = 4
	streamsShare   = 40

	// readersMax bounds pages of events read at a time, 16 × 3 MiB.
	readersMax = 16
	// archivedReadersMax bounds pages of an archive read at a time: each may wait for an object store.
	archivedReadersMax = 4
	// headReadersMax bounds pages read at a time that begin within headIDs of the head. They are
	// mostly small, and in memory.
	headReadersMax = 4
	headIDs        = 100
	// firstEvents is for how many events a page has room at first, some 16 KiB.
	firstEvents = 64
	// sparseIDs is the distance to the head beyond which a filter by collection has pages of its
	// own: nearer streams share pages.
	sparseIDs = 16 << 10
	// snapshotReadersMax bounds pages of snapshots among them. One client reads three at a time.
	snapshotReadersMax = 4
	// heldBytesMax bounds the long pages that subscribers have not read yet. Pages of at most twice
	// PageBytes are bounded by SubscribersMax, 1,000 × 256 KiB = 256 MiB.
	heldBytesMax = 256 << 20
	// pinnedMax is the size up to which an encoding is kept by a subscriber that sends a part of it:
	// like a usual page.
	pinnedMax = 256 << 10
	// blowUp is how many times larger the JSON of a record can be than the record: an empty byte
	// string takes one byte, and {"$bytes":""} fourteen with its comma.
	blowUp = 14
	// eventBytes is the approximate size of an event without its record, in memory and in a frame.
	eventBytes = 250

	// arenaBytes is how much memory for the bytes of events is allocated at a time.
	arenaBytes = 32 << 10

	// updateBytesMax bounds a message of a consumer: a filter of 10,000 DIDs takes 350 KB.
	updateBytesMax = 512 << 10
	// optionsBytesMax is the same for Jetstream: its own servers take 10 MB, which 1,000 streams of
	// a public listener would make 10 GB.
	optionsBytesMax = 1 << 20
	// filterBytesMax bounds the filters of all streams, of which one client gets three quarters: 100
	// filters of 10,000 DIDs. Filters of at most filterBytesFree do not count: SubscribersMax bounds
	// them.
	filterBytesMax  = 128 << 20
	filterBytesFree = 16 << 10
	// messagesMax bounds the messages of consumers that are understood at a time, one of each client.
	messagesMax = 2
	// ackBytesMax is the same for an acknowledgement.
	ackBytesMax = 4 << 10
	// acksMax bounds the acknowledgements that are settled together, a buffer of the shortest.
	acksMax = 512
	// acksPause is for how long no acknowledgements are read while the consumer has at least
	// acksPauseMin events left: more than it handles meanwhile, at 100,000 a second.
	acksPause    = time.Millisecond
	acksPauseMin = 100
	// acksWakeBytes is how many bytes of acknowledgements, some 60, may arrive in a pause without
	// waking the processor.
	acksWakeBytes = 2 << 10
	// saveEvery is how often the position of a durable subscription is written.
	saveEvery = 100 * time.Millisecond
	// batchMax bounds the events of a message.
	batchMax = 1000
	// denseIDs is the distance of two events up to which both are read at once: reading the events
	// in between costs less than another read.
	denseIDs = 16
	// pingEvery is how often an idle stream is probed.
	pingEvery = 30 * time.Second
	// peerTimeout ends a stream when its peer has sent nothing for that long.
	peerTimeout = 90 * time.Second
	// farewellTimeout bounds the closing handshake of a stream.
	farewellTimeout = 2 * time.Second
	// sharedAge is how long subscribers share a page (invariant 2).
	sharedAge = time.Second
)
