package backfill

import "cistern/store"

// flight is a DID in flight. key is the place in the queue from which the DID was taken. anew means
// that the DID was later read from another place: its row was enqueued again while the task ended,
// and no other wake-up follows.
type flight struct {
	key  store.PendingKey
	anew bool
	host uint32 // the host of the other place
}

// flights are the DIDs in flight: each is claimed by one task, or waits in memory for a permit.
// dispatcher.mu guards them, and each method is called with it held.
type flights struct {
	inflight map[string]*flight
	versions map[string]uint32 // by DID: version of the filter that the fetch uses
}

func newFlights() flights {
	return flights{make(map[string]*flight), make(map[string]uint32)}
}

// add records a DID as in flight, with the place in the queue from which it was taken.
func (f *flights) add(did string, k store.PendingKey) { f.inflight[did] = &flight{key: k} }

func (f *flights) has(did string) bool { return f.inflight[did] != nil }

// busy reports whether a DID is in flight. If it was taken from another place than k, busy records
// k (flight.anew).
func (f *flights) busy(did string, k store.PendingKey) bool {
	is := f.inflight[did]
	if is != nil && is.key != k {
		is.anew, is.host = true, k.Host
	}
	return is != nil
}

// land removes a DID. If its row was found at another place meanwhile, anew is true, and host is
// the host of that place.
func (f *flights) land(did string) (host uint32, anew bool) {
	is := f.inflight[did]
	delete(f.inflight, did)
	delete(f.versions, did)
	if is == nil {
		return 0, false
	}
	return is.host, is.anew
}
