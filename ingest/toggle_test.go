package ingest_test

import (
	"math"
	"sync/atomic"
	"testing"
	"time"

	"cistern/ingest"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"
)

// A relay that takes an account away and gives it back again and again does not have us list its records each time: it
// stays hidden until its own host is to be asked.
func TestReactivationsArePostponed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	_, before := w.log(a)
	for range 5 {
		a.Announce(false, simnet.Deactivated)
		a.Announce(true, simnet.Active)
	}
	w.pass()
	w.logs(a, "account deactivated", "account active", "account deactivated")
	w.until("somebody is woken for the first and each that is postponed", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.wakes == 5 })
	row, now := w.row(a), w.clock()
	if row.State != store.StateGone || row.Status != store.StatusDeactivated || !row.Recheck {
		t.Errorf("it is %s, %s, recheck %v", row.State, row.Status, row.Recheck)
	}
	// The second waits a minute, the fifth eight.
	if due := time.Unix(row.Retry.Next, 0).Sub(now); due < 7*time.Minute || due > 8*time.Minute {
		t.Errorf("its host is asked in %s, want 8 minutes", due)
	}
	if n := w.count("events_total", "account", "postponed"); n != 4 {
		t.Errorf("%d were postponed, want 4", n)
	}
	w.advance(3 * time.Hour)
	set(w, a, func(r *store.Repo) { r.Missing = 3 })
	a.Announce(true, simnet.Active)
	w.pass()
	w.logs(a, "account deactivated", "account active", "account deactivated", "account active")
	if n := w.row(a).Missing; n != 0 {
		t.Errorf("it was missing %d times", n)
	}
	if _, listed := w.log(a); listed <= before {
		t.Errorf("%d records are listed, %d were before it came back", listed, before)
	}
	// A fetch that is under way may have the answer of before.
	set(w, a, func(r *store.Repo) { r.State, r.Status = store.StatePending, store.StatusSuspended })
	attempt := w.row(a).Attempt
	a.Announce(true, simnet.Active)
	w.pass()
	if row := w.row(a); row.State != store.StateGone || row.Status != store.StatusSuspended || row.Attempt == attempt || row.Retry.Next == 0 {
		t.Errorf("it is %s, %s, due %d", row.State, row.Status, row.Retry.Next)
	}
}

// Nobody asks the host of an account that is not followed. It comes back with an event that the budget allows.
func TestUntrackedReactivations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	set(w, a, func(r *store.Repo) { r.State, r.Tracked = store.StateIdle, store.Untracked })
	for range 2 {
		a.Announce(false, simnet.Deactivated)
		a.Announce(true, simnet.Active)
	}
	w.pass()
	if row := w.row(a); row.Status != store.StatusDeactivated || row.Retry.Next != 0 {
		t.Errorf("it is %s, %s, due %d", row.State, row.Status, row.Retry.Next)
	}
	w.advance(3 * time.Hour)
	a.Announce(true, simnet.Active)
	w.pass()
	if row := w.row(a); row.Status != store.StatusActive || row.State != store.StateIdle {
		t.Errorf("it is %s, %s", row.State, row.Status)
	}
	w.logs(a, "account deactivated", "account active", "account deactivated", "account active")
}

// Each listing takes numbers. When they are used up, the repository is copied anew.
func TestListingNumbersUsedUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	a.Announce(false, simnet.Deactivated)
	w.pass()
	set(w, a, func(r *store.Repo) { r.Listed = math.MaxUint32 })
	a.Announce(true, simnet.Active)
	w.pass()
	if row := w.row(a); row.Status != store.StatusActive || row.State != store.StatePending || row.Ordinal != 0 || row.Recheck {
		t.Errorf("it is %s, %s, ordinal %d, recheck %v", row.State, row.Status, row.Ordinal, row.Recheck)
	}
}

// Many repositories that come back at one moment are as heavy as a large one.
func TestManyComeBack(t *testing.T) {
	t.Parallel()
	var w *world
	var parked atomic.Bool
	db := storetest.Open(t, store.Options{Step: func(string) {
		if w != nil && w.r.Parked() > 0 {
			parked.Store(true)
		}
	}})
	w = newWorld(t, func(o *ingest.Options) { o.Shards, o.Store = 1, db })
	accounts := w.net.Accounts()
	w.hold(accounts...)
	for _, a := range accounts[1:] {
		w.fill(a, ingest.HeavyRecords-1)
		set(w, a, func(r *store.Repo) { r.State, r.Status = store.StateGone, store.StatusDeactivated })
	}
	w.skip()
	unlock := w.store.Lock(accounts[0].DID())
	w.put(accounts[0], "app.test.x/one", "1") // the shard waits
	for _, a := range accounts[1:] {
		a.Announce(true, simnet.Active)
	}
	w.send()
	unlock()
	w.settle()
	for _, a := range accounts[1:] {
		if row := w.row(a); row.Status.Hidden() {
			t.Errorf("%s is hidden", a.DID())
		}
	}
	if !parked.Load() {
		t.Error("all was done by the shard")
	}
}
