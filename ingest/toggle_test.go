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

// A status that changes again and again costs what its records cost to be told anew: an account of
// few records is shown at once, one of many stays hidden for a while, and its row says so.
func TestReactivationsArePostponed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	small, large := w.net.Accounts()[0], w.net.Accounts()[1]
	w.hold(small, large)
	w.fill(large, ingest.StatusBurst/2)
	w.skip()
	toggle := func(a *simnet.Account) {
		a.Announce(false, simnet.Deactivated)
		a.Announce(true, simnet.Active)
		w.pass()
		w.until("heavy work is done", func() bool { return w.r.Parked() == 0 })
	}
	for range 20 {
		toggle(small)
		if row := w.row(small); row.Status.Hidden() || row.State != store.StatePending {
			t.Fatalf("the small one is %s, %s", row.State, row.Status)
		}
	}
	for i := range 3 {
		toggle(large)
		if hidden := w.row(large).Status.Hidden(); hidden != (i == 2) {
			t.Fatalf("the large one is hidden %t after %d reactivations", hidden, i+1)
		}
	}
	row, now := w.row(large), w.clock()
	if row.State != store.StateGone || row.Status != store.StatusDeactivated || row.Mark != store.MarkReturning || !row.Recheck || row.Retry.Error == "" {
		t.Errorf("it is %s, %s, marked %q, recheck %v, because %q", row.State, row.Status, row.Mark, row.Recheck, row.Retry.Error)
	}
	if n := w.store.Counts()["returning"]; n != 1 {
		t.Errorf("%d are counted as returning", n)
	}
	wait := time.Unix(row.Retry.Next, 0).Sub(now)
	if wait <= 0 || wait > 2*time.Minute {
		t.Errorf("its host is asked in %s", wait)
	}
	if n := w.count("events_total", "account", "postponed"); n != 1 {
		t.Errorf("%d were postponed, want 1", n)
	}
	w.advance(wait + time.Second)
	set(w, large, func(r *store.Repo) { r.Missing = 3 })
	a := large
	a.Announce(true, simnet.Active)
	w.pass()
	w.until("heavy work is done", func() bool { return w.r.Parked() == 0 })
	if row := w.row(large); row.Missing != 0 || row.Status.Hidden() || row.Mark != store.MarkNone || w.store.Counts()["returning"] != 0 {
		t.Errorf("it is %s, missing %d times, marked %q", row.Status, row.Missing, row.Mark)
	}
}

// Chain breaks do not make an account wait that comes back.
func TestBreaksDelayNoReactivation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	set(w, a, func(r *store.Repo) { r.Breaks, r.Broken = 8, w.clock().Unix() })
	a.SetStatus(simnet.Deactivated)
	a.SetStatus(simnet.Active)
	w.pass()
	if row := w.row(a); row.Status.Hidden() || row.State != store.StatePending || row.Breaks != 8 {
		t.Errorf("it is %s, %s, with %d breaks", row.State, row.Status, row.Breaks)
	}
}

// The host of an account that is not followed is not asked. It comes back with an event that the
// budget allows.
func TestUntrackedReactivations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	set(w, a, func(r *store.Repo) {
		r.State, r.Tracked = store.StateIdle, store.Untracked
		r.Charged, r.ChargedAt = ingest.StatusBurst+ingest.StatusRate*60, w.clock().Unix()
	})
	a.Announce(false, simnet.Deactivated)
	a.Announce(true, simnet.Active)
	w.pass()
	if row := w.row(a); row.Status != store.StatusDeactivated || row.Retry.Next != 0 {
		t.Errorf("it is %s, %s, due %d", row.State, row.Status, row.Retry.Next)
	}
	w.advance(2 * time.Minute)
	a.Announce(true, simnet.Active)
	w.pass()
	if row := w.row(a); row.Status != store.StatusActive || row.State != store.StateIdle {
		t.Errorf("it is %s, %s", row.State, row.Status)
	}
	w.logs(a, "account deactivated", "account active")
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
	w = newWorld(t, func(w *world) { w.opts.Shards, w.opts.Store = 1, db })
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
