package durable

// Tap is the name of the subscription that clients of tap consume.
const Tap = "tap"

// Limits of durable subscriptions. The defaults of Options bound the rest.
const (
	// subscriptionsMax bounds durable subscriptions. Each takes 300 KiB if 1,000 events are
	// outstanding, and its filter up to 1 MiB.
	subscriptionsMax = 100
	// nameBytesMax bounds a name, which is a label of metrics.
	nameBytesMax = 64
	// membersMax bounds the connections that share a subscription: each has its share of the window.
	membersMax = 100
)
