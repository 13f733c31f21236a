package ingest_test

import (
	"fmt"
	"testing"
	"time"

	"cistern/filter"
	"cistern/ingest"
	"cistern/ingest/simnet"
	"cistern/store"
)

// An account walks through all statuses; what readers may see follows at once.
func TestAccountWalk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	_, listed := w.log(a)
	records := len(a.Paths())
	for _, status := range []simnet.Status{simnet.Deactivated, simnet.Suspended, simnet.Takendown} {
		before := w.row(a)
		a.SetStatus(status)
		w.pass()
		row := w.row(a)
		if row.Status.String() != string(status) || row.State != store.StateGone || int(row.Records) != records || row.Attempt <= before.Attempt || row.Retry.Next == 0 {
			t.Errorf("after %s: %+v", status, row)
		}
	}
	w.put(a, "app.test.x/hidden", "nobody is told")
	a.SetStatus(simnet.Active)
	w.pass()
	row := w.row(a)
	if row.Status.Hidden() || row.State != store.StatePending || !row.Recheck || int(row.Records) != records {
		t.Errorf("after active: %+v", row)
	}
	w.logs(a, "account deactivated", "account suspended", "account takendown", "account active")
	if _, n := w.log(a); n != listed+valid(a.Paths())-1 { // the hidden one is not held yet
		t.Errorf("%d records listed anew, want %d", n-listed, valid(a.Paths())-1)
	}
	w.until("somebody is woken", w.woken)
}

func valid(paths []string) int { return len(paths) }

func TestReactivationListsOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	_, before := w.log(a)
	a.SetStatus(simnet.Deactivated)
	w.pass()
	a.SetStatus(simnet.Active)
	for range 3 { // relays repeat themselves
		a.Announce(true, simnet.Active)
	}
	w.pass()
	w.until("the log is durable", func() bool { _, n := w.log(a); return n > before })
	if _, n := w.log(a); n-before != len(a.Paths()) {
		t.Errorf("%d records listed, want %d", n-before, len(a.Paths()))
	}
	w.logs(a, "account deactivated", "account active")
}

func TestInfrastructureStatusesHideNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	for _, status := range []simnet.Status{"throttled", "desynchronized"} {
		a.Announce(false, status)
	}
	w.put(a, "app.test.x/one", "1")
	w.pass()
	w.equal(a)
	w.logs(a, "create app.test.x/one")
	a.Announce(false, "somethingnew")
	w.pass()
	if row := w.row(a); row.Status != store.StatusInactive || row.State != store.StateGone {
		t.Errorf("after an unknown status: %s, %s", row.Status, row.State)
	}
}

func TestDeletionWipes(t *testing.T) {
	t.Parallel()
	for _, records := range []int{12, ingest.HeavyRecords + 5} {
		t.Run(fmt.Sprint(records), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.net.Accounts()[0]
			w.hold(a)
			if records > 100 {
				w.fill(a, records)
			}
			w.skip()
			set(w, a, func(r *store.Repo) { r.State = store.StatePending })
			w.begin(a)
			w.put(a, "app.test.x/one", "1")
			w.pass()
			if n := w.store.Buffered(a.DID()); n != 1 {
				t.Fatalf("%d commits buffered, want 1", n)
			}
			attempt := w.row(a).Attempt
			a.SetStatus(simnet.Deleted)
			w.pass()
			w.until("the DID goes on", func() bool { return w.r.Parked() == 0 })
			row := w.row(a)
			if row.State != store.StateGone || row.Status != store.StatusDeleted || row.Ordinal != 0 || row.Records != 0 || row.Attempt == attempt || row.Rev != "" {
				t.Errorf("row %+v", row)
			}
			if n := w.store.Buffered(a.DID()); n != 0 {
				t.Errorf("%d commits still buffered", n)
			}
			if n := w.store.Counts()["records"]; n != 0 {
				t.Errorf("%d records counted", n)
			}
			w.logs(a, "account deleted")
		})
	}
}

func TestHeavyRelist(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.net.Accounts()[0], w.net.Accounts()[1]
	w.hold(a, b)
	w.fill(a, ingest.HeavyRecords)
	w.skip()
	_, before := w.log(a)
	set(w, a, func(r *store.Repo) { r.State, r.Status = store.StateGone, store.StatusDeactivated })
	a.Announce(true, simnet.Active)
	a.Announce(true, simnet.Active)
	w.put(b, "app.test.x/one", "1")
	w.pass()
	w.equal(b)
	row := w.row(a)
	if row.State != store.StatePending || row.Status.Hidden() {
		t.Errorf("row %+v", row)
	}
	w.until("the log is durable", func() bool { lines, _ := w.log(a); return len(lines) == 1 })
	if _, n := w.log(a); n-before < ingest.HeavyRecords || n-before >= 2*ingest.HeavyRecords {
		t.Errorf("%d listed", n-before)
	}
	if w.count("events_total", "account", "applied") != 2 {
		t.Error("not every event was counted")
	}
}

// Events of before the newest are of no account: relays deliver in any order.
func TestOldAccountEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	a.SetStatus(simnet.Deactivated)
	a.SetStatus(simnet.Active)
	messages := w.net.RelayHost().Messages(w.sent)
	w.pass()
	again := ingestFeed(w, "ws://other.test", false)
	for _, m := range messages {
		if err := again.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	w.until("all is done", func() bool { return again.Idle() })
	if row := w.row(a); row.Status.Hidden() {
		t.Errorf("hidden again: %+v", row)
	}
	w.logs(a, "account deactivated", "account active")
}

func TestUnknownAccounts(t *testing.T) {
	t.Parallel()
	for _, full := range []bool{false, true} {
		w := newWorld(t)
		w.stop()
		w.start()
		if full {
			w.follow(filter.ModeFull)
		}
		a, b := w.net.Accounts()[0], w.net.Accounts()[1]
		w.skip()
		a.SetStatus(simnet.Deleted)
		b.Announce(true, simnet.Active)
		w.pass()
		ra, _ := w.store.RepoOrNew(a.DID())
		rb, _ := w.store.RepoOrNew(b.DID())
		if ra.Known() != full || rb.Known() != full {
			t.Fatalf("full %t: known %t and %t", full, ra.Known(), rb.Known())
		}
		if full && (ra.State != store.StateGone || ra.Status != store.StatusDeleted || ra.Retry.Next != 0 || rb.State != store.StatePending) {
			t.Errorf("rows %+v and %+v", ra, rb)
		}
	}
}

// TestGoneBeforeRead: whose account it was is read at once, also when it goes before its first fetch has read that.
func TestGoneBeforeRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stop()
	w.follow(filter.ModeFull)
	w.start()
	a := w.net.Accounts()[0]
	w.skip()
	w.put(a, "app.test.x/one", "1")
	w.pass()
	if row := w.row(a); row.State != store.StatePending || row.Resolved != 0 {
		t.Fatalf("row %+v", row)
	}
	for _, status := range []simnet.Status{simnet.Deactivated, simnet.Deleted} {
		a.SetStatus(status)
		w.pass()
		if row := w.row(a); row.State != store.StateGone || row.Status.String() != string(status) || row.Retry.Next != w.clock().Unix() {
			t.Errorf("row %+v, want %s", row, status)
		}
	}
	set(w, a, func(r *store.Repo) { // the document could not be read: who says more of the account does not make us ask sooner
		r.State, r.Retry = store.StateResync, store.Retry{Next: w.clock().Unix() + 60, Count: 1, Kind: store.Transport}
	})
	a.SetStatus(simnet.Suspended)
	w.pass()
	if row := w.row(a); row.State != store.StateGone || row.Retry.Next < w.clock().Unix()+3600 {
		t.Errorf("row %+v", row)
	}
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	a.AnnounceIdentity() // nothing has changed
	a.SetHandle("new.test")
	a.AnnounceIdentity()
	w.put(a, "app.test.x/one", "1")
	w.pass()
	w.equal(a)
	row := w.row(a)
	if row.Handle != "new.test" || row.IdentityTime == 0 || row.Resolved == 0 {
		t.Errorf("row %+v", row)
	}
	w.logs(a, "identity new.test", "create app.test.x/one")
	w.net.Accounts()[1].SetHandle("unknown.test")
	w.pass()
	if n := w.dir.lookups(w.net.Accounts()[1].DID()); n != 0 {
		t.Errorf("%d lookups for an unknown DID", n)
	}
}

func TestIdentityIsReadLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	w.dir.failing(errDown)
	a.SetHandle("new.test")
	w.pass()
	if row := w.row(a); row.Resolved != 0 || row.IdentityTime == 0 || row.Handle == "new.test" {
		t.Errorf("while the directory is down: %+v", row)
	}
	w.dir.failing(nil)
	w.until("the identity is read", func() bool { w.advance(time.Second); return w.row(a).Handle == "new.test" })
	w.logs(a, "identity new.test")
}

// A PDS speaks for its own accounts.
func TestDirectPDS(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	home := a.Host()
	other := w.net.Host(0)
	if other == home {
		other = w.net.Host(1)
	}
	w.hold(a)
	own := ingestFeed(w, "ws"+home.URL()[len("http"):], true)
	wrong := ingestFeed(w, "ws"+other.URL()[len("http"):], true)
	at := home.Head()
	w.put(a, "app.test.x/one", "1")
	messages := home.Messages(at)
	for _, m := range messages {
		if err := wrong.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if err := wrong.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	w.until("the wrong host is refused", func() bool { return wrong.Idle() && wrong.Refused() > 0 })
	if row := w.row(a); row.State != store.StateSynced || w.dir.lookups(a.DID()) != 1 {
		t.Errorf("row is %s after %d lookups, want synced after 1", row.State, w.dir.lookups(a.DID()))
	}
	at = w.sendTo(own, home, at)
	w.until("the own host is heard", func() bool { return own.Idle() })
	w.equal(a)
	if own.Refused() != 0 {
		t.Error("the own host was refused")
	}
	// After a migration the document decides, whatever the row says.
	a.Migrate(other)
	w.advance(2 * time.Minute)
	after := other.Head()
	w.put(a, "app.test.x/two", "1")
	w.sendTo(wrong, other, after)
	w.until("the new host is heard", func() bool { return wrong.Idle() })
	w.equal(a)
	w.sendTo(own, home, at) // its account event says deactivated
	w.until("the old host is refused", func() bool { return own.Idle() })
	w.equal(a)
}

// However many events say that an identity has changed, it is read as often as that can have helped.
func TestIdentityLookupsAreFew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	answer := w.dir.stall(a.DID())
	from := w.sent
	for i := range 20 {
		a.SetHandle(fmt.Sprintf("new%d.test", i))
	}
	w.send()
	w.until("it is parked", func() bool { return w.r.Parked() == 1 })
	answer()
	w.settle()
	again := ingestFeed(w, "ws://other.test", false)
	w.sendTo(again, w.net.RelayHost(), from)
	w.until("the other is done", func() bool { return again.Idle() })
	if n := w.dir.lookups(a.DID()); n > 2 {
		t.Errorf("%d lookups", n)
	}
	if w.row(a).Handle != "new19.test" {
		t.Errorf("handle %s", w.row(a).Handle)
	}
	w.logs(a, "identity new19.test")
}
