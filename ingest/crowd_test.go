package ingest_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"
)

// flood is a world with a small queue, and a hand for events of DIDs that it does not know.
func flood(t *testing.T) (w *world, send func(message []byte) error) {
	w = newWorld(t, func(w *world) { w.opts.Shards, w.opts.Lookups, w.hose.QueueBytes = 1, 4, 64<<10 })
	w.hold(w.net.Accounts()[0])
	w.skip()
	return w, func(message []byte) error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return w.feed.Send(ctx, message)
	}
}

// web tracks a did:web whose host does not answer until the end of the test.
func (w *world) web(did string) {
	w.t.Helper()
	setIn(w, did, func(b *store.Batch, r *store.Repo) { storetest.Reach(b, r, store.StateResync) })
	w.t.Cleanup(w.dir.stall(did))
}

// However many identities are at hosts that do not answer, the events that wait for them leave room
// for other accounts.
func TestWebsDoNotFillTheQueue(t *testing.T) {
	t.Parallel()
	w, send := flood(t)
	a := w.net.Accounts()[0]
	at := w.clock().Format(time.RFC3339)
	const webs = 900
	for i := range webs {
		did := fmt.Sprintf("did:web:host%d.example", i)
		w.web(did)
		m := encode(header("#identity"), map[string]any{"seq": 1 + i, "did": did, "time": at, "handle": "a.example"})
		if err := send(m); err != nil {
			t.Fatalf("event %d: %v", i, err)
		}
	}
	other := w.newFeed("ws://other.test", false)
	w.put(a, "app.test.x/one", "1")
	w.sendTo(other, w.net.RelayHost(), w.sent)
	w.until("the other goes on", func() bool { return w.row(a).Rev == a.Truth().Rev })
	w.equal(a)
	if n := w.feed.Waiting(); n == 0 || n > webs/5 {
		t.Errorf("%d identities wait", n)
	}
	// Nobody's word for what was not read.
	did := fmt.Sprintf("did:web:host%d.example", webs-1)
	if row, err := w.store.Repo(did); err != nil || row.IdentityTime == 0 || row.Resolved != 0 {
		t.Errorf("row %+v, %v", row, err)
	}
}

// Nor do events behind one such identity: of each kind the newest waits, and counts.
func TestNewestAccountWaits(t *testing.T) {
	t.Parallel()
	w, send := flood(t)
	did := "did:web:slow.example"
	setIn(w, did, func(b *store.Batch, r *store.Repo) { storetest.Reach(b, r, store.StateResync) })
	answer := w.dir.stall(did)
	seq := 0
	say := func(kind string, after time.Duration, more map[string]any) {
		t.Helper()
		seq++
		body := map[string]any{"seq": seq, "did": did, "time": w.clock().Add(after).Format(time.RFC3339Nano)}
		for k, v := range more {
			body[k] = v
		}
		if err := send(encode(header(kind), body)); err != nil {
			t.Fatalf("event %d: %v", seq, err)
		}
	}
	say("#identity", 0, map[string]any{"handle": "a.example"})
	w.until("it waits", func() bool { return w.r.Parked() == 1 })
	for i := range 5000 {
		status := []string{"suspended", "takendown"}[i%2]
		say("#account", time.Duration(i)*time.Millisecond, map[string]any{"active": false, "status": status})
	}
	say("#account", 7*time.Second, map[string]any{"active": false, "status": "throttled"})
	say("#account", -time.Hour, map[string]any{"active": false, "status": "deleted"})
	say("#account", 6*time.Second, map[string]any{"active": false, "status": "deactivated"})
	for range 200 {
		say("#account", 8*time.Second, map[string]any{"active": false, "status": "throttled"})
	}
	w.until("all is taken", func() bool { return w.count("queued_events") == 0 })
	answer()
	w.settle()
	if row, err := w.store.Repo(did); err != nil || row.Status != store.StatusDeactivated {
		t.Errorf("it is %s, %v", row.Status, err)
	}
	lookups := w.dir.lookups(did)
	say("#identity", 9*time.Second, map[string]any{"handle": "a.example"}) // there is room again
	w.settle()
	if n := w.dir.lookups(did); n != lookups+1 {
		t.Errorf("%d lookups, want %d", n, lookups+1)
	}
	if w.feed.Mark() != w.feed.Last() {
		t.Errorf("the mark is at %d of %d", w.feed.Mark(), w.feed.Last())
	}
}

// An identity event that claims to be of the far future hides no later one from another source:
// their document is read, if not at once.
func TestFutureIdentityHidesNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	identityOf := func(seq int, at time.Time) []byte {
		return encode(header("#identity"), map[string]any{"seq": seq, "did": a.DID(), "time": at.Format(time.RFC3339Nano)})
	}
	now := w.clock()
	if err := w.feed.Send(t.Context(), identityOf(1, now.Add(time.Hour))); err != nil {
		t.Fatal(err)
	}
	w.settle()
	if row := w.row(a); row.IdentityTime > w.clock().UnixMicro() {
		t.Errorf("the event counts as of %d", row.IdentityTime)
	}
	w.net.RelayHost().InjectStream(simnet.StreamFault{Kind: simnet.StreamGap, DID: a.DID()})
	a.SetHandle("new.test")
	other := w.newFeed("ws://other.test", false)
	// its clock is slow
	if err := other.Send(t.Context(), identityOf(2, now.Add(-time.Minute))); err != nil {
		t.Fatal(err)
	}
	w.until("the document is read", func() bool { w.advance(time.Second); return w.row(a).Handle == "new.test" })
}
