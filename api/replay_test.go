package api_test

import (
	"testing"

	"cistern/api"
)

// TestStreamReplaysBesideLiveEvents: a client that reads a long log from its beginning, more slowly
// than live events come, gets all of it: no client is too slow for events on disk.
func TestStreamReplaysBesideLiveEvents(t *testing.T) {
	t.Parallel()
	const old, live, burst = 60_000, 20_000, 500
	log := newFakeLog(identities(old)...)
	ws := follow(t, serveLog(t, log, api.Options{}).URL, "?cursor=0")
	wantIDs(t, ws, 1, 1)     // it has begun
	for range live / burst { // and reads nothing meanwhile: more than the buffers of the connection hold
		log.add(identities(burst)...)
	}
	wantIDs(t, ws, 2, old+live)
	log.add(identity(0))
	wantIDs(t, ws, old+live+1, old+live+1)
}
