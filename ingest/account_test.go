package ingest_test

import (
	"fmt"
	"strings"
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
	w.put(a, "app.test.x/hidden", "not shown")
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
	w.until("Wake is called", w.woken)
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

// throttled and desynchronized say that a relay or host does not pass on everything: the row says
// so, nothing is hidden, and the account's host is asked, now and when the account is active again.
func TestMarksHideNothing(t *testing.T) {
	t.Parallel()
	for status, mark := range map[simnet.Status]store.Mark{"throttled": store.MarkThrottled, "desynchronized": store.MarkDesynchronized} {
		w := newWorld(t)
		a := w.net.Accounts()[0]
		w.hold(a)
		w.skip()
		a.Announce(false, status)
		w.pass()
		row := w.row(a)
		if row.Status != store.StatusActive || row.Mark != mark || row.State != store.StatePending || !row.Recheck {
			t.Errorf("%s: the row is %s, %s, marked %q, recheck %t", status, row.Status, row.State, row.Mark, row.Recheck)
		}
		// follows what we hold, and is applied while the host is still to be asked
		w.put(a, "app.test.x/one", "1")
		w.pass()
		w.logs(a, "create app.test.x/one")
		// the host was asked
		set(w, a, func(r *store.Repo) { r.State, r.Recheck = store.StateSynced, false })
		w.equal(a)
		a.Announce(true, simnet.Active)
		w.pass()
		if row := w.row(a); row.Mark != store.MarkNone || row.State != store.StatePending || !row.Recheck {
			t.Errorf("after %s and active: %s, marked %q, recheck %t", status, row.State, row.Mark, row.Recheck)
		}
		w.logs(a, "create app.test.x/one")
	}
}

// A relay that throttles an account passes on what the account's host says, and holds back commits
// all the same. Each #account that says active has the host asked, until a commit has come.
func TestActiveWhileWithheld(t *testing.T) {
	t.Parallel()
	ends := map[string]func(w *world, a *simnet.Account){
		"active":            func(*world, *simnet.Account) {},
		"hidden and shown":  func(w *world, a *simnet.Account) { a.SetStatus(simnet.Deactivated); a.SetStatus(simnet.Active) },
		"active, and again": func(w *world, a *simnet.Account) { a.Announce(true, simnet.Active) },
	}
	for name, between := range ends {
		w := newWorld(t)
		a := w.net.Accounts()[0]
		w.hold(a)
		w.skip()
		a.Announce(false, "throttled")
		a.Announce(true, simnet.Active)
		between(w, a)
		w.pass()
		asked := func(r *store.Repo) { r.State, r.Recheck, r.Retry = store.StateSynced, false, store.Retry{} }
		set(w, a, asked)
		a.Announce(true, simnet.Active)
		w.pass()
		if row := w.row(a); row.State != store.StatePending || !row.Recheck {
			t.Errorf("throttled, %s, then active: %s, recheck %t", name, row.State, row.Recheck)
		}
		set(w, a, asked)
		w.put(a, "app.test.x/one", "1")
		w.pass()
		a.Announce(true, simnet.Active)
		w.pass()
		if row := w.row(a); row.State != store.StateSynced {
			t.Errorf("throttled, %s, a commit, then active: %s", name, row.State)
		}
	}
}

// A relay passes on nothing of an account that it hides, and the account's host may be asked before
// the relay says active, too. What the relay held back is then asked for.
func TestActiveAfterItsHostSaidSo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	a.SetStatus(simnet.Suspended)
	w.pass()
	if row := w.row(a); !row.Status.Hidden() {
		t.Fatalf("the row is %s", row.Status)
	}
	setIn(w, a.DID(), func(b *store.Batch, row *store.Repo) { b.Enqueue(row, store.PriorityRetry) })
	setIn(w, a.DID(), func(b *store.Batch, row *store.Repo) { b.Show(row); b.Complete(row) })
	a.SetStatus(simnet.Active)
	w.pass()
	if row := w.row(a); row.State != store.StatePending || !row.Recheck {
		t.Errorf("its host said active, then the relay: %s, recheck %t", row.State, row.Recheck)
	}
}

// A flood of marks while a repository is fetched has it fetched again only as often as the budget
// allows.
func TestMarksDuringFetchAreBudgeted(t *testing.T) {
	t.Parallel()
	const most = ingest.StatusBurst/ingest.StatusAsk + 2 // and what a slow run pays off
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	for range 2 * most {
		a.Announce(false, "throttled")
	}
	w.pass()
	if row := w.row(a); row.State != store.StatePending || row.Asked == 0 || row.Asked > most {
		t.Errorf("after %d marks: %s, to be asked again %d times, want at most %d", 2*most, row.State, row.Asked, most)
	}
}

// An unknown account that a relay throttles is discovered as one that is active.
func TestThrottledIsDiscovered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stop()
	w.follow(filter.ModeFull)
	w.start()
	w.skip()
	a := w.net.Accounts()[0]
	a.Announce(false, "throttled")
	w.pass()
	if row := w.row(a); row.State != store.StatePending || row.Status.Hidden() {
		t.Errorf("row %+v", row)
	}
}

// A status that no lexicon names hides the account.
func TestUnknownStatus(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	a.Announce(false, "somethingnew")
	w.pass()
	if row := w.row(a); row.Status != store.StatusInactive || row.State != store.StateGone {
		t.Errorf("after an unknown status: %s, %s", row.Status, row.State)
	}
}

// A deletion hides the account at once, drops what is buffered, and has the account's host asked.
// The data is kept until that host confirms: the word may be a former host's.
func TestDeletionHides(t *testing.T) {
	t.Parallel()
	for _, tracked := range []store.Why{store.ByOperator, store.Untracked} {
		w := newWorld(t)
		a := w.net.Accounts()[0]
		w.hold(a)
		w.skip()
		if tracked == store.Untracked {
			set(w, a, func(r *store.Repo) { r.State, r.Tracked = store.StateIdle, tracked })
		} else {
			set(w, a, func(r *store.Repo) { r.State = store.StatePending })
			w.begin(a)
			w.put(a, "app.test.x/one", "1")
			w.pass()
			if n := w.store.Buffered(a.DID()); n != 1 {
				t.Fatalf("%d commits buffered, want 1", n)
			}
		}
		before := w.row(a)
		a.SetStatus(simnet.Deleted)
		w.pass()
		row := w.row(a)
		if row.State != store.StateGone || row.Status != store.StatusDeleted || row.Origin != store.OriginRelay || row.Attempt == before.Attempt || !row.Unconfirmed() || row.Records != before.Records {
			t.Errorf("tracked %s: row %+v", tracked, row)
		}
		if row.Retry.Next != w.clock().Unix() || !row.Recheck || row.Retry.Error == "" {
			t.Errorf("tracked %s: its host is asked at %d, recheck %t, since %q", tracked, row.Retry.Next, row.Recheck, row.Retry.Error)
		}
		if n := w.store.Buffered(a.DID()); n != 0 {
			t.Errorf("%d commits still buffered", n)
		}
		w.logs(a, "account deleted")
	}
}

// A hidden account is hidden again while its host is asked: the answer may be older than the event,
// so the host is asked anew.
func TestHiddenAgainWhileItsHostIsAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	a.Announce(false, simnet.Deactivated)
	w.pass()
	setIn(w, a.DID(), func(b *store.Batch, r *store.Repo) { b.Enqueue(r, store.PriorityRetry) }) // its host is asked
	before := w.row(a)
	a.Announce(false, simnet.Deactivated)
	w.pass()
	row := w.row(a)
	if row.State != store.StateGone || row.Attempt == before.Attempt || row.Retry.Next < w.clock().Unix() {
		t.Errorf("the attempt goes on: %+v", row)
	}
	a.Announce(false, simnet.Deactivated)
	w.pass()
	if again := w.row(a); again.Attempt != row.Attempt || again.Retry.Next != row.Retry.Next {
		t.Errorf("told once more, its host is asked sooner: %+v", again)
	}
}

// A relay's takedown is ended by that relay, not by another source; a deactivation, which is the
// host's, by any.
func TestRelayTakedownStands(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status simnet.Status
		ends   bool // by the word of another relay
	}{{simnet.Takendown, false}, {simnet.Suspended, false}, {"somethingnew", false}, {simnet.Deactivated, true}} {
		w := newWorld(t)
		a := w.net.Accounts()[0]
		w.hold(a)
		w.skip()
		other := w.newFeed("ws://other.test", false)
		a.Announce(false, c.status)
		w.pass()
		if row := w.row(a); row.Origin != store.OriginRelay || row.Retry.Next != w.clock().Unix() {
			t.Errorf("%s is the word of a %s, the host is asked at %d", c.status, row.Origin, row.Retry.Next)
		}
		from := w.sent
		a.Announce(true, simnet.Active)
		w.sendTo(other, w.net.RelayHost(), from)
		w.until("the other is done", func() bool { return other.Idle() })
		if row := w.row(a); row.Status.Hidden() == c.ends {
			t.Errorf("%s: after another relay's active the account is %s", c.status, row.Status)
		}
		w.pass()
		if row := w.row(a); row.Status.Hidden() {
			t.Errorf("%s: after the relay's own active the account is %s", c.status, row.Status)
		}
	}
}

// Events of one source count in the order in which they arrive, whatever times the hosts behind it
// state. Between sources times decide, but none is later than its arrival, and a deletion counts at
// an equal time and without any. What the account's own host says is not superseded by others.
func TestOrderOfAccountEvents(t *testing.T) {
	t.Parallel()
	const active, deactivated, deleted = "active", "deactivated", "deleted"
	for _, c := range []struct {
		name          string
		first, second string
		after         time.Duration // the first, as it states
		then          time.Duration // the second
		other         bool          // the second comes from another source
		untimed       bool          // and states no time
		own           bool          // and is the account's host
		want          store.Status
	}{
		{"one source, the first clock is ahead", deactivated, active, 4 * time.Minute, 0, false, false, false, store.StatusActive},
		{"one source, times fall", active, deactivated, -time.Hour, -2 * time.Hour, false, false, false, store.StatusDeactivated},
		{"two sources, the first clock is ahead", deactivated, active, 4 * time.Minute, time.Second, true, false, false, store.StatusActive},
		{"two sources, an old event comes late", active, deactivated, -time.Minute, -time.Hour, true, false, false, store.StatusActive},
		{"a deletion at the same time", active, deleted, -time.Minute, -time.Minute, true, false, false, store.StatusDeleted},
		{"a deletion without a time", active, deleted, -time.Minute, 0, true, true, false, store.StatusDeleted},
		{"the account's host, an event older than another's", active, deactivated, -time.Minute, -time.Hour, true, false, true, store.StatusDeactivated},
		{"the account's host, the event that another sent", active, deactivated, -time.Minute, -time.Minute, true, false, true, store.StatusActive},
		{"anything else at the same time", active, deactivated, -time.Minute, -time.Minute, true, false, false, store.StatusActive},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.net.Accounts()[0]
			w.hold(a)
			begin := w.clock()
			say := func(f *feed, seq int, status, at string) {
				m := map[string]any{"seq": seq, "did": a.DID(), "time": at, "active": status == active}
				if status != active {
					m["status"] = status
				}
				if err := f.Send(t.Context(), encode(header("#account"), m)); err != nil {
					t.Fatal(err)
				}
				w.until("it is handled", func() bool { return f.Idle() })
			}
			say(w.feed, 1, c.first, begin.Add(c.after).Format(time.RFC3339Nano))
			w.advance(2 * time.Second)
			second, at := w.feed, begin.Add(c.then).Format(time.RFC3339Nano)
			switch {
			case c.own:
				second = w.newFeed(strings.Replace(w.row(a).PDS, "http", "ws", 1), true)
			case c.other:
				second = w.newFeed("ws://other.test", false)
			}
			if c.untimed {
				at = "yesterday"
			}
			say(second, 2, c.second, at)
			if row := w.row(a); row.Status != c.want || row.AccountTime > w.clock().UnixMicro() {
				t.Errorf("the account is %s, as of %d at %d", row.Status, row.AccountTime, w.clock().UnixMicro())
			}
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

// Events older than the newest have no effect: relays deliver in any order.
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
	again := w.newFeed("ws://other.test", false)
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
		if full && (ra.State != store.StateGone || ra.Status != store.StatusDeleted || ra.Retry.Next == 0 || rb.State != store.StatePending) {
			t.Errorf("rows %+v and %+v", ra, rb)
		}
	}
}

// TestGoneBeforeRead: whose account it was is read at once, also when it goes before its first
// fetch has read that.
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
	// The document could not be read: a further statement about the account does not make us ask
	// sooner.
	setIn(w, a.DID(), func(b *store.Batch, r *store.Repo) {
		b.Enqueue(r, store.PriorityRetry)
		b.Defer(r, store.Retry{Next: w.clock().Unix() + 60, Count: 1, Kind: store.Transport})
	})
	a.SetStatus(simnet.Suspended)
	w.pass()
	if row := w.row(a); row.State != store.StateGone || row.Retry.Next != w.clock().Unix()+60 {
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
	own := w.newFeed("ws"+home.URL()[len("http"):], true)
	wrong := w.newFeed("ws"+other.URL()[len("http"):], true)
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
	applied := func() {
		t.Helper()
		// What the new host said before the document named it was refused, so that it is asked. Its
		// commits are applied meanwhile.
		if row := w.row(a); row.Rev != a.Truth().Rev || row.PDS != other.URL() || row.State != store.StatePending || !row.Recheck {
			t.Errorf("row is %s at %s of %s, recheck %t", row.State, row.Rev, row.PDS, row.Recheck)
		}
	}
	applied()
	w.sendTo(own, home, at) // its account event says deactivated
	w.until("the old host is refused", func() bool { return own.Idle() })
	applied()
}

// However many events say that an identity has changed, it is read as often as that can have
// helped.
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
	again := w.newFeed("ws://other.test", false)
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
