package durable

import "time"

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

	// webhookEventsMax bounds the events of a request, and webhookRequestsMax the requests of a
	// webhook in flight, each of which is a member. webhookRequests is the default.
	webhookEventsMax   = 100
	webhookRequestsMax = 16
	webhookRequests    = 4
	// secretsMax bounds the secrets of a webhook: two while one replaces the other.
	secretsMax = 4
	// secretBytes is the size of a secret that is made. Standard Webhooks bounds all.
	secretBytes    = 32
	secretBytesMin = 24
	secretBytesMax = 64
	// webhookRetry is the retry timeout of webhooks: requests end, so that none is needed.
	webhookRetry = 100 * 365 * 24 * time.Hour
)
