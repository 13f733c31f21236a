package ingest_test

import (
	"testing"
	"time"

	"cistern/ingest"
	"cistern/ingest/identity"
	"cistern/ingest/simnet"
	"cistern/store"
)

// stale has the row say that its document was read more than a day ago.
func (w *world) stale(r *store.Repo) { r.Resolved = w.clock().Add(-25 * time.Hour).Unix() }

// While the directory does not answer, a commit that the held key has signed is applied, and the
// document is read when the directory answers again.
func TestHeldKeyDuringOutage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	set(w, a, w.stale)
	was := w.row(a).Resolved
	w.dir.failing(errDown)
	w.put(a, "app.test.x/one", "1")
	w.pass()
	w.equal(a)
	if n := w.dir.lookups(a.DID()); n != 1 {
		t.Errorf("%d lookups, want 1", n)
	}
	w.until("the read was tried in vain", func() bool { w.advance(time.Second); return w.dir.lookups(a.DID()) > 3 })
	w.put(a, "app.test.x/two", "1")
	w.send()
	w.until("the events are done", func() bool { w.advance(time.Second); return w.feed.Idle() })
	w.equal(a)
	if n := w.count("refetches_total", "now") + w.count("refetches_total", "later"); n != 0 {
		t.Errorf("%d refetches", n)
	}
	w.dir.failing(nil)
	w.until("the document is read", func() bool { w.advance(time.Second); return w.row(a).Resolved > was })
	w.logs(a, "create app.test.x/one", "create app.test.x/two")
}

// TestHeldKeyThatDoesNotCount: the thief of a former key must not have commits applied by keeping
// the directory from answering. A key that was read long ago does not count, nor one that an
// #identity followed whose document could not be read.
func TestHeldKeyThatDoesNotCount(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		age       time.Duration
		announced bool
		want      bool
	}{
		"read a while ago":        {ingest.HeldKeyMax - time.Hour, false, true},
		"read long ago":           {ingest.HeldKeyMax + time.Hour, false, false},
		"read in the far future":  {-ingest.HeldKeyMax - time.Hour, false, false},
		"announced to be another": {time.Minute, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.net.Accounts()[0]
			w.hold(a)
			w.skip()
			set(w, a, func(r *store.Repo) { r.Resolved = w.clock().Add(-c.age).Unix() })
			w.dir.failing(errDown)
			if c.announced {
				a.AnnounceIdentity()
				w.pass()
			}
			before := w.row(a)
			w.put(a, "app.test.x/one", "1")
			w.send()
			asked := w.dir.lookups(a.DID())
			w.until("the commit is applied, or waits", func() bool {
				w.advance(time.Second)
				return w.feed.Idle() || w.dir.lookups(a.DID()) >= asked+4
			})
			if applied := w.row(a).Rev != before.Rev; applied != c.want || w.row(a).State != store.StateSynced {
				t.Errorf("applied: %t, want %t; row is %s", applied, c.want, w.row(a).State)
			}
			w.dir.failing(nil)
			w.until("the events are done", func() bool { w.advance(time.Second); return w.feed.Idle() })
			w.equal(a)
		})
	}
}

// A commit of another key than the held one waits until the directory answers.
func TestRotationDuringOutage(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	for name, prepare := range map[string]func(*world, *store.Repo){
		"no recent document":   (*world).stale,
		"a recent document":    func(*world, *store.Repo) {},
		"a document to reread": func(_ *world, r *store.Repo) { r.Resolved = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.net.Accounts()[0]
			w.hold(a)
			w.skip()
			set(w, a, func(r *store.Repo) { prepare(w, r) })
			w.net.RelayHost().InjectStream(silentIdentity(a.DID()))
			w.dir.failing(errDown)
			before := w.row(a)
			a.RotateKey()
			w.put(a, "app.test.x/one", "1")
			w.send()
			w.until("the key was asked for again and again", func() bool { w.advance(time.Second); return w.dir.lookups(a.DID()) >= 6 })
			if row := w.row(a); row.State != store.StateSynced || row.Rev != before.Rev || w.r.Parked() != 1 {
				t.Errorf("row is %s at %s, was %s", row.State, row.Rev, before.Rev)
			}
			w.dir.failing(nil)
			w.until("the events are done", func() bool { w.advance(time.Second); return w.feed.Idle() })
			w.equal(a)
			if row := w.row(a); row.Key != a.Truth().Key {
				t.Errorf("key %s, want %s", row.Key, a.Truth().Key)
			}
		})
	}
}

// An outage without end: what the held key has not signed is fetched again in the end.
func TestRotationDuringEndlessOutage(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	set(w, a, w.stale)
	w.net.RelayHost().InjectStream(silentIdentity(a.DID()))
	w.dir.failing(errDown)
	a.RotateKey()
	w.send()
	w.until("the event is done", func() bool { w.advance(time.Minute); return w.feed.Idle() })
	row := w.row(a)
	if row.State != store.StatePending || row.SeenRev != a.Truth().Rev || !row.Recheck {
		t.Errorf("row is %s, seen %q", row.State, row.SeenRev)
	}
	if w.count("events_total", "commit", "failed") != 1 {
		t.Error("not counted")
	}
}

// A key that the document named once, and no longer names as far as we know, does not count because
// of an outage.
func TestFormerKeyDuringOutage(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	w.put(a, "app.test.x/one", "1") // by the key that the row holds
	set(w, a, w.stale)
	other := w.net.Accounts()[1].Truth()
	key, err := identity.ParseKey(other.Key)
	if err != nil {
		t.Fatal(err)
	}
	w.dir.failing(errDown) // which empties the cache
	w.dir.mu.Lock()
	w.dir.cache[a.DID()] = identity.Identity{DID: a.DID(), PDS: a.Truth().Host, Key: other.Key, PublicKey: key}
	w.dir.mu.Unlock()
	before := w.row(a).Rev
	w.send()
	w.until("the event is done", func() bool { w.advance(time.Minute); return w.feed.Idle() })
	if row := w.row(a); row.Rev != before || row.State != store.StatePending {
		t.Errorf("row is %s at %s, was at %s", row.State, row.Rev, before)
	}
}

// When the directory has not answered for a while, commits that the held key has signed wait for no
// lookup.
func TestOutageSparesLookups(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	accounts := w.net.Accounts()
	w.hold(accounts...)
	w.skip()
	w.dir.failing(errDown)
	for _, a := range accounts {
		set(w, a, w.stale)
	}
	w.put(accounts[0], "app.test.x/one", "1")
	w.pass()
	w.until("the outage is noticed", func() bool {
		w.advance(time.Second)
		return w.dir.lookups(accounts[0].DID()) >= ingest.OutageFailures
	})
	w.put(accounts[1], "app.test.x/one", "1") // its lookup fails too, perhaps
	w.pass()
	for _, a := range accounts[2:] {
		w.put(a, "app.test.x/one", "1")
	}
	w.pass() // the clock stands still
	for i, a := range accounts {
		w.equal(a)
		if n := w.dir.lookups(a.DID()); i > 1 && n > 0 {
			t.Errorf("%d lookups for account %d", n, i)
		}
	}
}

// silentIdentity has a relay leave out what would tell of a new key.
func silentIdentity(did string) simnet.StreamFault {
	return simnet.StreamFault{Kind: simnet.StreamGap, DID: did, Type: "#identity"}
}
