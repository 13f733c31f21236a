package backfill_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"
)

// A status from a firehose is checked with the account's own host. The host decides about its own
// statuses and deletions; a takedown by a relay stands. Data is wiped when the host, or the absence
// of a document, confirms a deletion.
func TestStatusIsConfirmed(t *testing.T) {
	t.Parallel()
	none := func(*simnet.Account) {}
	is := func(s simnet.Status) func(*simnet.Account) { return func(a *simnet.Account) { a.SetStatus(s) } }
	gone := func(a *simnet.Account) { a.Tombstone() }
	for _, c := range []struct {
		told  store.Status
		truth func(*simnet.Account)

		want   store.Status
		origin store.Origin
		wiped  bool
	}{
		{store.StatusDeactivated, is(simnet.Deactivated), store.StatusDeactivated, store.OriginHost, false},
		// From a former host.
		{store.StatusDeactivated, none, store.StatusActive, store.OriginHost, false},
		{store.StatusDeleted, none, store.StatusActive, store.OriginHost, false},
		{store.StatusDeleted, is(simnet.Deactivated), store.StatusDeactivated, store.OriginHost, false},
		{store.StatusDeleted, is(simnet.Deleted), store.StatusDeleted, store.OriginHost, true},
		{store.StatusDeleted, gone, store.StatusDeleted, store.OriginDirectory, true},
		// The relay's own decision.
		{store.StatusTakendown, none, store.StatusTakendown, store.OriginRelay, false},
		{store.StatusTakendown, is(simnet.Takendown), store.StatusTakendown, store.OriginHost, false},
		{store.StatusTakendown, is(simnet.Deactivated), store.StatusTakendown, store.OriginRelay, false},
		// It may be found again.
		{store.StatusTakendown, is(simnet.Deleted), store.StatusTakendown, store.OriginRelay, false},
		{store.StatusInactive, none, store.StatusInactive, store.OriginRelay, false},
	} {
		t.Run(fmt.Sprint(c.told, c.want, c.origin), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}})
			did := w.Net.DIDs()[0]
			w.Add(did)
			w.Settle(did)
			before := w.Row(did)
			c.truth(w.Net.Account(did))
			w.Say(did, c.told)
			r := w.Settled(did, before.Attempt+1)
			if r.Status != c.want || r.Origin != c.origin || (r.Ordinal == 0) != c.wiped {
				t.Errorf("it is %s, %s by the word of the %s, ordinal %d: %+v", r.State, r.Status, r.Origin, r.Ordinal, r.Retry)
			}
			if ordered := r.AccountSource != 0; ordered != (r.Origin == store.OriginRelay) {
				t.Errorf("its host has answered, and the #account of source %d counts as newer than what comes", r.AccountSource)
			}
			if r.Status.Hidden() && (r.State != store.StateGone || r.Retry.Next == 0 || r.Retry.Error == "") {
				t.Errorf("it is %s, looked at again at %d, because %q", r.State, r.Retry.Next, r.Retry.Error)
			}
			if !r.Status.Hidden() {
				w.Settle(did)
				w.Equal(did)
			}
			w.Gauges()
		})
	}
}

// A commit that is newer than the copy contradicts a deletion: the data is not wiped at the first
// RepoNotFound, and the account is shown when its host answers.
func TestContradictedDeletion(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}, runner: backfill.Options{RetryBase: time.Millisecond, RetryMax: time.Millisecond}})
	did := w.Net.DIDs()[0]
	w.Add(did)
	w.Settle(did)
	if _, err := w.Net.Account(did).Mutate(1); err != nil {
		t.Fatal(err)
	}
	fault := w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.Unavailable, Endpoint: "*", Count: 2})
	w.Change(did, func(r *store.Repo) { r.SeenRev = w.Net.Account(did).Truth().Rev })
	ordinal := w.Row(did).Ordinal
	w.Say(did, store.StatusDeleted)
	w.Until("it is shown", func() bool {
		w.Clock.Advance(time.Second)
		w.Run.Wake()
		return w.Row(did).State == store.StateSynced
	})
	if fault.Fired() != 2 || w.Row(did).Ordinal != ordinal {
		t.Errorf("after %d answers that it is not found, ordinal %d is %d", fault.Fired(), ordinal, w.Row(did).Ordinal)
	}
	w.Equal(did)
}

// The host of an account that is not followed is asked when a deletion is announced, since its data
// must not stay. Nothing is fetched.
func TestUntrackedDeletion(t *testing.T) {
	t.Parallel()
	for _, deleted := range []bool{false, true} {
		w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}})
		did := w.Net.DIDs()[0]
		w.Add(did)
		w.Settle(did)
		if deleted {
			w.Net.Account(did).SetStatus(simnet.Deleted)
		}
		fetches := len(w.Net.Host(0).Log().Fetches[did])
		w.Untrack(did)
		before := w.Row(did)
		w.Say(did, store.StatusDeleted)
		r := w.Settled(did, before.Attempt+1)
		if deleted && (r.State != store.StateGone || r.Status != store.StatusDeleted || r.Ordinal != 0 || r.Retry.Next != 0) {
			t.Errorf("deleted: %+v", r)
		}
		if !deleted && (r.State != store.StateIdle || r.Status.Hidden() || r.Ordinal != before.Ordinal || r.Records != before.Records) {
			t.Errorf("not deleted: %+v", r)
		}
		if n := len(w.Net.Host(0).Log().Fetches[did]); n != fetches {
			t.Errorf("%d fetches", n-fetches)
		}
		w.Gauges()
	}
}

// A host that does not find a repository which it serves a moment later hides nothing: that is a
// failure, with a reason and a time for the next attempt.
func TestOneNotFoundHidesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}})
	did := w.Net.DIDs()[0]
	w.Add(did)
	w.Settle(did)
	head := storetest.Head(w.T, w.Store)
	w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.Unavailable, Endpoint: "*", Count: 2})
	w.Add(did)
	w.Settle(did)
	r := w.Row(did)
	if r.State != store.StateResync || r.Status.Hidden() || r.Missing != 1 || r.Retry.Kind != store.Generic || r.Retry.Next-w.Clock.Now().Unix() > 70 {
		t.Errorf("the row is %s, %s, missing %d, %+v", r.State, r.Status, r.Missing, r.Retry)
	}
	w.Clock.Advance(10 * time.Minute)
	w.Run.Wake()
	w.Until("the second answer", func() bool { return w.Row(did).Missing == 2 })
	w.Clock.Advance(10 * time.Minute)
	w.Run.Wake()
	w.Until("it is found again", func() bool { return w.Row(did).State == store.StateSynced })
	w.Settle(did)
	w.Equal(did)
	if got := w.Accounts(did, head+1); len(got) != 0 {
		t.Errorf("events %v", got)
	}
}

// A host that imported a repository reports a later rev than that of the commit. A copy of that
// commit is not behind.
func TestImportedIsNotBehind(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 2, Repos: 1}})
	did := w.Net.DIDs()[0]
	a := w.Net.Account(did)
	w.Add(did)
	w.Settle(did)
	to := w.Net.Hosts()[1-slices.Index(w.Net.Hosts(), a.Host())]
	a.Migrate(to)
	w.ChangeIn(did, func(b *store.Batch, r *store.Repo) {
		r.Recheck, r.SeenRev = true, a.NextTID()
		b.Enqueue(r, store.PriorityRetry)
	})
	w.Run.Wake()
	w.Until("its host to be asked", func() bool { return w.Row(did).State != store.StatePending && !w.Run.InFlight(did) })
	// The host does not have that rev.
	if r := w.Row(did); r.State != store.StateResync || r.SeenRev == "" {
		t.Errorf("%s, seen %q", r.State, r.SeenRev)
	}
	a.Migrate(w.Net.Hosts()[0])
	a.Migrate(to) // now the host reports a higher rev
	w.ChangeIn(did, func(b *store.Batch, r *store.Repo) { b.Enqueue(r, store.PriorityRetry) })
	w.Run.Wake()
	w.Until("it is complete", func() bool { return w.Row(did).State == store.StateSynced })
	w.Settle(did)
	w.Equal(did)
	if r := w.Row(did); r.SeenRev != "" || r.PDS != to.URL() {
		t.Errorf("seen %q, at %s", r.SeenRev, r.PDS)
	}
}
