package deliver_test

import (
	"testing"

	"cistern/api/deliver"
	"cistern/api/deliver/delivertest"
)

// TestStreamReplaysBesideLiveEvents: a client that reads a long log from its beginning, more slowly
// than live events come, gets all of it: no client is too slow for events on disk.
func TestStreamReplaysBesideLiveEvents(t *testing.T) {
	t.Parallel()
	const old, live, burst = 60_000, 20_000, 500
	log := delivertest.NewLog(delivertest.Identities(old)...)
	ws := delivertest.Follow(t, serveLog(t, log, deliver.Options{}).URL, "?cursor=0")
	delivertest.WantIDs(t, ws, 1, 1) // it has begun
	for range live / burst {         // and reads nothing meanwhile: more than the buffers of the connection hold
		log.Add(delivertest.Identities(burst)...)
	}
	delivertest.WantIDs(t, ws, 2, old+live)
	log.Add(delivertest.Identity(0))
	delivertest.WantIDs(t, ws, old+live+1, old+live+1)
}
