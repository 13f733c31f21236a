package api

import "time"

// Limits on what outsiders can ask for. The defaults of Options bound the rest.
const (
	// connsMax bounds open connections of each listener: 4,096 × about 12 KiB of buffers and
	// stacks is 48 MiB.
	connsMax = 4096
	// queriesMax bounds queries computed at a time. The worst holds pageBytesMax of JSON and
	// pageStep records of 1 MiB, 32 × 33 MiB = 1 GiB; the usual page is 50 KiB.
	queriesMax = 32
	// largeAnswer is the size from which answers that clients have not read yet share
	// largeBytesMax; smaller ones are bounded by 4,096 connections × 64 KiB = 256 MiB.
	largeAnswer   = 64 << 10
	largeBytesMax = 128 << 20
	// queryWait is how long a query waits for its turn before it is sent away.
	queryWait = 2 * time.Second
	// pageBytesMax ends a page of listRecords early: limit 100 × 1 MiB would be 100 MiB.
	pageBytesMax = 8 << 20
	// pageStep is how many records listRecords reads at a time between looks at pageBytesMax.
	pageStep = 25

	// headerBytesMax bounds request headers; browsers send 1 to 2 KiB.
	headerBytesMax = 16 << 10
	// headerTimeout is how long a client may take to send them.
	headerTimeout = 10 * time.Second
	// bodyTimeout is how long a client may take to send a request, 8 MiB at 140 KB/s.
	bodyTimeout = time.Minute
	// answerTimeout is how long a client may take to read an answer, 16 MiB at 280 KB/s.
	answerTimeout = time.Minute
	// profileTimeout is the same on the private listener, whose profiles take as long as asked for.
	profileTimeout = 5 * time.Minute
	// idleTimeout closes connections that nobody uses.
	idleTimeout = 2 * time.Minute

	// bodyBytesMax bounds the body of a change: 100,000 DIDs take 4.5 MB.
	bodyBytesMax = 8 << 20
	// bodyItemsMax bounds its items.
	bodyItemsMax = 100_000
	// changesMax is how many rows one batch changes, under as many locks.
	changesMax = 200

	// didBytesMax is the protocol's limit.
	didBytesMax = 2048
	// echoCharsMax bounds how much of a bad value an error repeats.
	echoCharsMax = 80

	// inboundBytesMax bounds a WebSocket message from a client, who has nothing to say but
	// control frames, which have this limit by themselves.
	inboundBytesMax = 125
	// pingEvery is how often an idle stream is probed.
	pingEvery = 30 * time.Second
	// peerTimeout ends a stream whose peer shows no sign of life.
	peerTimeout = 90 * time.Second
	// farewellTimeout bounds telling a peer why its stream ends, and waiting for its answer.
	farewellTimeout = 2 * time.Second

	// sizesAge is how old the sizes in /stats may be: computing them reads table metadata.
	sizesAge = 10 * time.Second
	// sharedAge is how long subscribers share an encoded page (invariant 2).
	sharedAge = time.Second
)
