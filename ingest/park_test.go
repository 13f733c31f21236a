package ingest_test

import (
	"errors"
	"fmt"
	"testing"

	"cistern/ingest"
	"cistern/ingest/identity"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"
)

var errDown = errors.New("connection refused")

// A DID whose key is being looked up keeps its events in order and delays no other DID.
func TestParkedDelaysNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *world) { w.opts.Shards = 1 })
	a, b := w.net.Accounts()[0], w.net.Accounts()[1]
	w.hold(a, b)
	w.skip()
	set(w, a, func(r *store.Repo) { r.Resolved = 0 })
	answer := w.dir.stall(a.DID())
	for i := range 5 {
		w.put(a, "app.test.x/one", fmt.Sprint(i))
		w.put(b, "app.test.x/one", fmt.Sprint(i))
	}
	w.send()
	w.until("the other goes on", func() bool { return w.row(b).Rev == b.Truth().Rev })
	w.equal(b)
	if n := w.feed.Waiting(); n != 5 {
		t.Errorf("%d events wait, want 5", n)
	}
	if w.r.Parked() != 1 {
		t.Errorf("%d parked, want 1", w.r.Parked())
	}
	if at := w.feed.Mark(); at >= w.feed.Last()-8 {
		t.Errorf("the mark is at %d, behind events that wait; the last is %d", at, w.feed.Last())
	}
	answer()
	w.settle()
	w.equal(a)
	if n := w.dir.lookups(a.DID()); n != 1 {
		t.Errorf("%d lookups, want 1", n)
	}
	if w.r.Parked() != 0 {
		t.Error("still parked")
	}
}

// A Run that ends with a DID parked loses nothing: its cursor has not passed the events.
func TestStopWhileParked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.net.Accounts()[0], w.net.Accounts()[1]
	w.hold(a, b)
	w.skip()
	w.put(b, "app.test.x/zero", "1")
	w.pass()
	set(w, a, func(r *store.Repo) { r.Resolved = 0 })
	answer := w.dir.stall(a.DID())
	w.put(a, "app.test.x/one", "1")
	w.put(b, "app.test.x/one", "1")
	before := w.sent
	w.send()
	w.until("the other goes on", func() bool { return w.row(b).Rev == b.Truth().Rev })
	w.stop()
	seq, _, err := w.store.Cursor("ws://relay.test")
	if err != nil || seq != before {
		t.Errorf("cursor is %d (%v), want %d", seq, err, before)
	}
	answer()
	w.sent = seq
	w.run() // the same Runner
	w.pass()
	w.equal(a)
	w.equal(b)
	w.logs(b, "create app.test.x/zero", "create app.test.x/one")
	w.stop()
	if seq, _, _ = w.store.Cursor("ws://relay.test"); seq != w.sent {
		t.Errorf("cursor is %d at the end, want %d", seq, w.sent)
	}
}

// With no room for more, only revs are kept, and the repository is fetched again.
func TestParkedCommitsCoalesce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *world) { w.opts.Shards, w.hose.QueueBytes = 1, 64<<10 })
	a, b := w.net.Accounts()[0], w.net.Accounts()[1]
	w.hold(a, b)
	w.skip()
	set(w, a, func(r *store.Repo) { r.Resolved = 0 })
	answer := w.dir.stall(a.DID())
	for i := range 100 { // far more than the queue holds
		w.put(a, "app.test.x/one", fmt.Sprint(i))
	}
	w.put(b, "app.test.x/one", "1")
	w.send()
	w.until("the other goes on", func() bool { return w.row(b).Rev == b.Truth().Rev })
	if n := w.count("coalesced_total"); n == 0 {
		t.Error("nothing was coalesced")
	}
	w.until("only parked ones are held", func() bool { return w.feed.Queued() <= 64<<10/ingest.ParkedShare })
	answer()
	w.settle()
	row := w.row(a)
	if row.State != store.StatePending || row.SeenRev != a.Truth().Rev {
		t.Errorf("row is %s, seen %q, want pending and %s", row.State, row.SeenRev, a.Truth().Rev)
	}
	storetest.Head(t, w.store)
	// the kept events are applied
	if lines, _ := w.log(a); len(lines) >= 100 || len(lines) == 0 {
		t.Errorf("%d of 100 commits are in the log", len(lines))
	}
}

// No document, no key: the fetch finds out what is to become of the repository.
func TestNoDocument(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	set(w, a, func(r *store.Repo) { r.Resolved = 0 })
	w.dir.failing(identity.ErrNotFound)
	w.put(a, "app.test.x/one", "1")
	w.pass()
	if row := w.row(a); row.State != store.StatePending || w.dir.lookups(a.DID()) != 1 || w.count("rejected_total", "identity") != 1 {
		t.Errorf("row is %s after %d lookups", row.State, w.dir.lookups(a.DID()))
	}
}

// An account event must not be lost to a directory that is down for minutes.
func TestDeletionBehindParked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	set(w, a, func(r *store.Repo) { r.Resolved = 0 })
	answer := w.dir.stall(a.DID())
	w.put(a, "app.test.x/one", "1")
	a.SetStatus(simnet.Deleted)
	w.send()
	w.until("it is parked", func() bool { return w.r.Parked() == 1 })
	answer()
	w.settle()
	if row := w.row(a); !row.Unconfirmed() {
		t.Errorf("row %+v", row)
	}
	w.logs(a, "account deleted") // events of what was wiped no longer expand
}
