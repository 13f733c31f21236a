package tap

// Limits of requests.
const (
	// bodyBytesMax bounds the body of a change: 100,000 DIDs take 4.5 MB.
	bodyBytesMax = 8 << 20
	// didsMax bounds the DIDs of a change.
	didsMax = 100_000
)
