package discover_test

import (
	"testing"
	"time"

	"cistern/backfill/discover"
	"cistern/ingest/identity"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"
)

// say applies an #account event of a relay as the live side does.
func (w *world) say(did string, status store.Status) {
	w.t.Helper()
	w.change(did, func(r *store.Repo) {
		r.State, r.Status, r.Origin = store.StateGone, status, store.OriginRelay
		r.AccountTime, r.AccountSource = r.AccountTime+1, relaySource
		r.Attempt++
		r.Recheck, r.Retry = r.Ordinal != 0, store.Retry{Next: w.clock.now().Unix()}
	})
	w.wake()
}

const relaySource = 7

// settled waits until the host of an account with an account event has been asked.
func (w *world) settled(did string, attempt uint64) store.Repo {
	w.t.Helper()
	w.until("its host to be asked", func() bool {
		r := w.row(did)
		return r.Attempt != attempt && r.State != store.StatePending && !(r.State == store.StateGone && r.Retry.Next <= w.clock.now().Unix() && r.Retry.Next != 0) && !w.run.InFlight(did)
	})
	return w.row(did)
}

// A relay's takedown outlives the daily check and a pass over the account's host; when the relay is
// no longer followed, the host decides.
func TestRelayTakedownOutlives(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}})
	did := w.net.DIDs()[0]
	w.add(did)
	w.settle(did)
	w.say(did, store.StatusTakendown)
	w.settled(did, w.row(did).Attempt)
	head := storetest.Head(w.t, w.store)
	for range 3 {
		attempt := w.row(did).Attempt
		w.clock.advance(1000 * time.Hour) // past the longest wait
		w.wake()
		if r := w.settled(did, attempt); r.Status != store.StatusTakendown {
			t.Fatalf("after the daily look: %s", r.Status)
		}
	}
	lists := newList(t)
	lists.set(func() { lists.entries = []string{active(did, w.net.Account(did).NextTID())} })
	w.gap(lists.URL) // a host's list, or another relay's
	w.until("the list is read", func() bool { return len(w.passes()) == 0 })
	if got := w.events(did, head+1); len(got) != 0 {
		t.Errorf("events %v", got)
	}
	if r := w.row(did); r.Status != store.StatusTakendown || r.State != store.StateGone {
		t.Errorf("after the pass: %s, %s", r.State, r.Status)
	}
	w.stop()
	w.follows = func(source uint32) bool { return source != relaySource }
	w.start(discover.Options{})
	w.clock.advance(1000 * time.Hour)
	w.wake()
	w.until("it is shown", func() bool { return w.row(did).State == store.StateSynced })
	w.settle(did)
	w.equal(did)
}

// The list of the relay that hid an account shows that the account is no longer hidden: its host
// decides.
func TestRelayListEndsTakedown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}})
	did := w.net.DIDs()[0]
	w.add(did)
	w.settle(did)
	w.say(did, store.StatusTakendown)
	w.settled(did, w.row(did).Attempt)
	lists := newList(t)
	lists.set(func() { lists.entries = []string{active(did, w.net.Account(did).Truth().Rev)} })
	w.change(did, func(r *store.Repo) { r.AccountSource = store.SourceID(identity.HostOf(lists.URL)) })
	w.gap(lists.URL)
	w.until("it is shown", func() bool { return w.row(did).State == store.StateSynced })
	w.settle(did)
	w.equal(did)
}
