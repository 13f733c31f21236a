package ingest_test

import (
	"testing"
	"time"

	"cistern/ingest"
	"cistern/store"
)

// Events without end that say that a document has changed have it read a few times, then once a
// minute.
func TestIdentityEventsAreBudgeted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	accounts := w.net.Accounts()
	w.hold(accounts...)
	w.skip()
	for range 30 {
		for _, a := range accounts {
			a.AnnounceIdentity()
			w.pass()
		}
	}
	for _, a := range accounts {
		if n := w.dir.lookups(a.DID()); n != ingest.RereadBurst {
			t.Errorf("%d lookups of %s for 30 events, want %d", n, a.DID(), ingest.RereadBurst)
		}
	}
	// What has changed meanwhile is found when the budget allows, without another event.
	a := accounts[0]
	w.net.RelayHost().InjectStream(silentIdentity(a.DID()))
	a.SetHandle("new.test")
	w.advance(2 * time.Minute)
	w.until("the document is read", func() bool { return w.row(a).Handle == "new.test" })
	if n := w.dir.lookups(a.DID()); n != ingest.RereadBurst+1 {
		t.Errorf("%d lookups, want one more than %d", n, ingest.RereadBurst)
	}
	w.logs(a, "identity new.test")
}

// A read that is postponed is not forgotten with the process: the row vouches only until it is due.
func TestPostponedReadSurvives(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	for range ingest.RereadBurst + 1 {
		a.AnnounceIdentity()
		w.pass()
	}
	w.net.RelayHost().InjectStream(silentIdentity(a.DID()))
	a.SetHandle("new.test")
	w.stop()
	w.start()
	w.dir.Purge(a.DID()) // as a new process knows nothing
	w.put(a, "app.test.x/one", "1")
	w.pass()
	if row := w.row(a); row.Handle == "new.test" || row.Rev != a.Truth().Rev {
		t.Errorf("before the read is due: handle %s, rev %s", row.Handle, row.Rev)
	}
	w.dir.Purge(a.DID()) // the directory's cache has the row's age
	w.advance(2 * time.Minute)
	w.put(a, "app.test.x/two", "1")
	w.pass()
	if row := w.row(a); row.Handle != "new.test" {
		t.Errorf("the document was not read: %+v", row)
	}
	w.equal(a)
}

// An answer that took long does not replace what was read from the document meanwhile.
func TestLateAnswerReplacesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	answer := w.dir.stall(a.DID())
	a.AnnounceIdentity()
	w.send()
	w.until("the document is being read", func() bool { return w.dir.lookups(a.DID()) == 1 })
	w.advance(time.Minute)
	// by a fetch
	set(w, a, func(r *store.Repo) { r.Handle, r.Resolved = "newer.test", w.clock().Unix() })
	answer()
	w.settle()
	if row := w.row(a); row.Handle != "newer.test" {
		t.Errorf("the handle is %s again", row.Handle)
	}
	w.logs(a)
}

// TestIdentityReadWhileTheClockWasAhead: what a row was told a year from now is read again, and
// gives way to the answer.
func TestIdentityReadWhileTheClockWasAhead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	w.net.RelayHost().InjectStream(silentIdentity(a.DID()))
	a.RotateKey()
	set(w, a, func(r *store.Repo) { r.Resolved = w.clock().AddDate(1, 0, 0).Unix() })
	w.put(a, "app.test.x/one", "1")
	w.pass()
	w.equal(a)
	if row := w.row(a); row.Key != a.Truth().Key || row.Resolved > w.clock().Unix() {
		t.Errorf("key %s, want %s; read at %d", row.Key, a.Truth().Key, row.Resolved)
	}
}
