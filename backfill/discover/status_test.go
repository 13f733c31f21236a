package discover_test

import (
	"testing"
	"time"

	"cistern/backfill/backfilltest"
	"cistern/backfill/discover"
	"cistern/ingest/identity"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"
)

// A relay's takedown outlives the daily check and a pass over the account's host; when the relay is
// no longer followed, the host decides.
func TestRelayTakedownOutlives(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}})
	did := w.Net.DIDs()[0]
	w.Add(did)
	w.Settle(did)
	w.Say(did, store.StatusTakendown)
	w.Settled(did, w.Row(did).Attempt)
	head := storetest.Head(w.T, w.Store)
	for range 3 {
		attempt := w.Row(did).Attempt
		w.Clock.Advance(1000 * time.Hour) // past the longest wait
		w.Wake()
		if r := w.Settled(did, attempt); r.Status != store.StatusTakendown {
			t.Fatalf("after the daily look: %s", r.Status)
		}
	}
	lists := newList(t)
	lists.set(func() { lists.entries = []string{active(did, w.Net.Account(did).NextTID())} })
	w.gap(lists.URL) // a host's list, or another relay's
	w.Until("the list is read", func() bool { return len(w.passes()) == 0 })
	if got := w.Events(did, head+1); len(got) != 0 {
		t.Errorf("events %v", got)
	}
	if r := w.Row(did); r.Status != store.StatusTakendown || r.State != store.StateGone {
		t.Errorf("after the pass: %s, %s", r.State, r.Status)
	}
	w.Stop()
	w.follows = func(source uint32) bool { return source != backfilltest.RelaySource }
	w.start(discover.Options{})
	w.Clock.Advance(1000 * time.Hour)
	w.Wake()
	w.Until("it is shown", func() bool { return w.Row(did).State == store.StateSynced })
	w.Settle(did)
	w.Equal(did)
}

// The list of the relay that hid an account shows that the account is no longer hidden: its host
// decides.
func TestRelayListEndsTakedown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}})
	did := w.Net.DIDs()[0]
	w.Add(did)
	w.Settle(did)
	w.Say(did, store.StatusTakendown)
	w.Settled(did, w.Row(did).Attempt)
	lists := newList(t)
	lists.set(func() { lists.entries = []string{active(did, w.Net.Account(did).Truth().Rev)} })
	w.Change(did, func(r *store.Repo) { r.AccountSource = store.SourceID(identity.HostOf(lists.URL)) })
	w.gap(lists.URL)
	w.Until("it is shown", func() bool { return w.Row(did).State == store.StateSynced })
	w.Settle(did)
	w.Equal(did)
}
