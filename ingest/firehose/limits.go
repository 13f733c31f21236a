package firehose

import "time"

// Limits on what comes from sockets.
const (
	// discardBytesMax is up to where a message larger than frame.BytesMax is read and discarded; a
	// longer one ends the connection.
	discardBytesMax = 64 << 20
	// discardClass is the class of the buffer that it is read into: 64 KiB.
	discardClass = 4

	// Buffers are of 4 KiB, which holds most commits, to 8 MiB, in steps of two. A message is
	// charged for all of its buffer: 32 MiB are 8,192 events at most.
	bufferBytesMin = 4 << 10
	bufferClasses  = 12

	// opBytes is the memory of one operation of a decoded message, which is charged too: it is more
	// than the message has for it. An event that had more than opsKept does not keep their memory
	// for later ones.
	opBytes = 112
	opsKept = 16

	// handshakeBytesMax bounds what a host sends until the answer to our request is read,
	// certificates included.
	handshakeBytesMax = 256 << 10
	handshakeTimeout  = 20 * time.Second
	// failureBytesMax is where the text of a failure is cut off.
	failureBytesMax = 512
	writeTimeout    = 5 * time.Second
	// messageTimeouts is how many read timeouts one message may take, however steadily its bytes
	// come.
	messageTimeouts = 4

	// readBufferBytes takes some ten commits with one system call. A PDS sends fewer, and there may
	// be thousands of PDSes.
	readBufferBytes    = 64 << 10
	readBufferBytesPDS = 4 << 10
	writeBufferBytes   = 512 // pings and pongs

	// sourcesMax bounds the sources that are followed, at two goroutines and some 30 KiB each.
	sourcesMax = 8192
	// urlBytesMax bounds the name of a source.
	urlBytesMax = 512

	// A source is healthy, and its failures are forgotten, with the first event that is applied. If
	// its events are about no followed repository, a connection is healthy after this time or this
	// number of events.
	healthyAfter  = time.Minute
	healthyEvents = 1000
	// retryAfterRatio times Options.RetryMax is the longest Retry-After of a host that is obeyed.
	retryAfterRatio = 5
	// patienceMax bounds the time after which a source that is always silent is connected anew.
	patienceMax = time.Hour
	// idlePatiences is how many times its patience a source may be silent while all others are,
	// too: its host may answer pings and have lost our subscription.
	idlePatiences = 10

	// straysMax events in a row below the cursor, with rising seqs, mean that the host has begun a
	// new count. This is accepted once in a connection.
	straysMax = 100
	// After stuckMax connections in a row that end inside one message which we refuse to read to
	// its end, over stuckAfter at least, the source continues at its newest message. A proxy whose
	// host restarts may end more connections than that, but within seconds and between messages.
	stuckMax   = 3
	stuckAfter = 2 * time.Minute

	// denseMax bounds the measure of how dense the seqs of a source are: one more for two
	// consecutive seqs, half for a seq left out within a connection, one less for a seq left out
	// between two. A source is dense from denseMin on: three seqs left out in a row within a
	// connection show that it is not, and two do not.
	denseMax = 64
	denseMin = 8
	// gapTime is how long a source that is not dense may send nothing before messages count as
	// missing; gapTimeDense is the same for a dense source.
	gapTime      = 10 * time.Minute
	gapTimeDense = 2 * time.Hour
	// directMax bounds the hosts that are followed directly because relays leave out some of their
	// accounts, and unheardMax the accounts remembered for that, at about 100 bytes.
	directMax  = 256
	unheardMax = 16384
	// heardWithin is how long relays may take to send an event that a direct source has sent. A
	// direct source is dropped when all its events came from relays too for directFor.
	heardWithin = 10 * time.Minute
	directFor   = 24 * time.Hour
	// progressEvery is how far the time up to which a source was read moves before it is written:
	// 8,192 sources write 137 rows a second at most.
	progressEvery = time.Minute

	// cursorEvery is how often cursors are written that moved without a batch.
	cursorEvery = time.Second
	// removeEvery is how often it is checked whether the events of a removed source are handled.
	removeEvery = 50 * time.Millisecond
)
