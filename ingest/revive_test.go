package ingest_test

import (
	"testing"
	"time"

	"cistern/ingest/simnet"
	"cistern/store"
)

// gone leaves an account as backfill does behind its host's word: hidden, and looked at again the
// next day.
func gone(w *world, a *simnet.Account, status store.Status) (next int64) {
	next = w.clock().Add(24 * time.Hour).Unix()
	set(w, a, func(r *store.Repo) {
		r.State, r.Status, r.Attempt = store.StateGone, status, r.Attempt+1
		r.Retry = store.Retry{Next: next, Error: "its host says so"}
	})
	return next
}

// A commit with the signature of an account that counts as inactive has its host asked at once.
// While that is pending, further ones change nothing, and neither do commits without a valid
// signature.
func TestCommitRevives(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	for _, status := range []store.Status{store.StatusNotFound, store.StatusDeactivated} {
		next := gone(w, a, status)
		w.net.RelayHost().InjectStream(simnet.StreamFault{Kind: simnet.StreamForgedSignature, DID: a.DID(), Count: 1})
		forged := w.put(a, "app.test.x/one", w.clock().String())
		w.pass()
		if row := w.row(a); row.Retry.Next != next || row.SeenRev != forged.Rev {
			t.Errorf("%s: after a forged commit the host is asked at %d, want %d", status, row.Retry.Next, next)
		}
		w.put(a, "app.test.x/one", w.clock().String())
		w.pass()
		row := w.row(a)
		if row.State != store.StateGone || row.Retry.Next != w.clock().Unix() || row.SeenRev != a.Truth().Rev || !row.Recheck {
			t.Errorf("%s: after a commit the row is %s, due %d, seen %s, recheck %t", status, row.State, row.Retry.Next, row.SeenRev, row.Recheck)
		}
		breaks := row.Breaks
		for range 10 {
			w.put(a, "app.test.x/one", w.clock().String())
		}
		w.pass()
		if n := w.row(a).Breaks; n != breaks {
			t.Errorf("%s: commits while the host is to be asked cost %d of the budget", status, n-breaks)
		}
		w.advance(3 * time.Hour)
	}
	next := gone(w, a, store.StatusTakendown)
	set(w, a, func(r *store.Repo) { r.Origin = store.OriginRelay })
	w.put(a, "app.test.x/one", "hidden by a relay")
	w.pass()
	if row := w.row(a); row.Retry.Next != next {
		t.Errorf("a relay's takedown: the host is asked at %d, want %d", row.Retry.Next, next)
	}
}

// Commits that host after host denies make it be asked ever more seldom.
func TestRevivalsAreBudgeted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	var last time.Duration
	for i := range 6 {
		gone(w, a, store.StatusDeactivated)
		w.put(a, "app.test.x/one", w.clock().String())
		w.pass()
		wait := time.Duration(w.row(a).Retry.Next-w.clock().Unix()) * time.Second
		if i == 0 && wait != 0 || i > 1 && wait < 2*last-time.Second {
			t.Errorf("question %d waits %s after %s", i, wait, last)
		}
		last = wait
	}
}

// An identity event of an account that is inactive has its host asked, whether it has moved or not.
func TestIdentityRevives(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	gone(w, a, store.StatusDeactivated)
	a.AnnounceIdentity()
	w.pass()
	if next := w.row(a).Retry.Next; next != w.clock().Unix() {
		t.Errorf("its host is asked in %d s", next-w.clock().Unix())
	}
}

// A host that tells of an account before the document names it is refused; when the refusal has
// expired, the document is read again, and what was missed is asked for. Nothing else has to
// happen.
func TestMoveWhileRefused(t *testing.T) {
	t.Parallel()
	for _, hidden := range []bool{false, true} {
		w := newWorld(t)
		a := w.net.Accounts()[0]
		w.hold(a)
		home, other := a.Host(), elsewhere(w, a)
		early := w.newFeed("ws"+other.URL()[len("http"):], true)
		from := home.Head()
		a.AnnounceIdentity()
		w.sendTo(early, home, from) // any event of it, before the move
		w.until("it is refused", func() bool { return early.Idle() && early.Refused() == 1 })
		from = other.Head()
		a.Migrate(other)
		if hidden { // the former host was still believed when it deactivated the account
			gone(w, a, store.StatusDeactivated)
		}
		w.sendTo(early, other, from)
		w.until("all of it is refused", func() bool { return early.Idle() && early.Refused() > 2 })
		if row := w.row(a); row.PDS != home.URL() {
			t.Fatalf("it lives at %s already", row.PDS)
		}
		w.until("its new host is to be asked", func() bool {
			w.advance(time.Second)
			row := w.row(a)
			due := row.State == store.StatePending || row.State == store.StateGone && row.Retry.Next <= w.clock().Unix()
			return row.PDS == other.URL() && due
		})
		if n := w.dir.lookups(a.DID()); n != 2 {
			t.Errorf("hidden %t: %d lookups, want 2", hidden, n)
		}
	}
}

// A commit that follows what we hold is applied while the repository waits for its host: hosts that
// imported a repository tell of a rev that no commit has, and the wait for that ends there.
func TestCommitEndsWait(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(r *store.Repo)
		state  store.State
		rev    bool // it is applied
	}{
		{"a rev was seen that no commit has", func(*store.Repo) {}, store.StateSynced, true},
		{"its host is still to be asked", func(r *store.Repo) { r.State, r.Retry.Next = store.StatePending, 0 }, store.StatePending, true},
		{"a relay throttles it", func(r *store.Repo) { r.Mark = store.MarkThrottled }, store.StateResync, true},
		{"it is torn", func(r *store.Repo) { r.Torn = true }, store.StateResync, false},
		{"records lack", func(r *store.Repo) { r.Lacks = true }, store.StateResync, false},
		{"it is hidden", func(r *store.Repo) { r.Status = store.StatusDeactivated }, store.StateResync, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.net.Accounts()[0]
			w.hold(a)
			w.skip()
			before := w.row(a)
			set(w, a, func(r *store.Repo) {
				r.State, r.SeenRev = store.StateResync, a.NextTID()
				r.Retry = store.Retry{Kind: store.Generic, Count: 3, Next: w.clock().Add(time.Hour).Unix(), Error: "the host has an older rev"}
				c.change(r)
			})
			w.put(a, "app.test.x/one", "1")
			w.pass()
			row := w.row(a)
			if row.State != c.state || (row.Rev == a.Truth().Rev) != c.rev || !c.rev && row.SeenRev != a.Truth().Rev {
				t.Errorf("the row is %s at %s after %s, seen %q", row.State, row.Rev, before.Rev, row.SeenRev)
			}
			if c.state == store.StateSynced {
				w.equal(a)
			}
		})
	}
}

// One that does not follow it is only remembered.
func TestCommitKeepsWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.put(a, "app.test.x/one", "1")
	w.skip() // it is never told
	set(w, a, func(r *store.Repo) { r.State, r.Retry.Next = store.StateResync, w.clock().Add(time.Hour).Unix() })
	before := w.row(a)
	w.put(a, "app.test.x/two", "1")
	w.pass()
	if row := w.row(a); row.State != store.StateResync || row.Rev != before.Rev || row.SeenRev != a.Truth().Rev {
		t.Errorf("the row is %s at %s, seen %q", row.State, row.Rev, row.SeenRev)
	}
}
