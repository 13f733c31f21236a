package ingest_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"cistern/ingest/identity"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"
)

// The key in a row is used for a day, so that a rotation which no event announced is found at last.
func TestRowsVouchForADay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		age     time.Duration
		lookups int
	}{
		{23 * time.Hour, 0},
		{25 * time.Hour, 1},
	} {
		w := newWorld(t)
		a := w.net.Accounts()[0]
		w.hold(a)
		w.skip()
		w.net.RelayHost().InjectStream(simnet.StreamFault{Kind: simnet.StreamGap, DID: a.DID(), Type: "#identity"})
		a.SetHandle("untold.test")
		at := w.clock().Add(-c.age)
		set(w, a, func(r *store.Repo) { r.Resolved = at.Unix() })
		w.put(a, "app.test.x/one", "1")
		w.pass()
		w.equal(a)
		if n := w.dir.lookups(a.DID()); n != c.lookups {
			t.Errorf("%d lookups after %s, want %d", n, c.age, c.lookups)
		}
		if row := w.row(a); (row.Handle == "untold.test") != (c.lookups > 0) || (row.Resolved > at.Unix()) != (c.lookups > 0) {
			t.Errorf("after %s the handle is %s, resolved %d", c.age, row.Handle, row.Resolved)
		}
	}
}

// An account moves with its key, and keeps its handle: that is an identity event too.
func TestIdentityOfAMove(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		move func(w *world, a *simnet.Account)
	}{
		{"key", func(_ *world, a *simnet.Account) { a.RotateKey() }},
		{"host", func(w *world, a *simnet.Account) { a.Migrate(elsewhere(w, a)) }},
		{"both", func(w *world, a *simnet.Account) { a.MigrateKey(elsewhere(w, a)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.net.Accounts()[0]
			w.hold(a)
			w.skip()
			c.move(w, a)
			w.put(a, "app.test.x/one", "1")
			w.pass()
			w.equal(a)
			truth, row := a.Truth(), w.row(a)
			if row.PDS != truth.Host || row.Key != truth.Key || row.Handle != truth.Handle {
				t.Errorf("row says %s, %s, %s; it is %s, %s, %s", row.Handle, row.PDS, row.Key, truth.Handle, truth.Host, truth.Key)
			}
			w.logs(a, "identity "+a.Handle(), "create app.test.x/one")
		})
	}
}

// An #identity of a DID that has no document any more has that looked up again, so that a tombstone
// hides the account in the end. A directory that does not answer says nothing of the kind.
func TestIdentityWithoutDocument(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		answer error
		state  store.State
	}{
		{identity.ErrNotFound, store.StatePending},
		{errDown, store.StateSynced},
	} {
		w := newWorld(t)
		a := w.net.Accounts()[0]
		w.hold(a)
		w.skip()
		w.dir.failing(c.answer)
		a.AnnounceIdentity()
		w.pass()
		w.until("the lookup has failed", func() bool { return w.row(a).Resolved == 0 })
		if row := w.row(a); row.State != c.state || row.Status != store.StatusActive {
			t.Errorf("%v: %v, %v, want %v", c.answer, row.State, row.Status, c.state)
		}
	}
}

// What an account that has moved waits for is its new host: the former one may be down, or banned.
func TestMoveChangesQueue(t *testing.T) {
	t.Parallel()
	for _, state := range []store.State{store.StateSynced, store.StatePending, store.StateResync, store.StateGone} {
		w := newWorld(t)
		a := w.net.Accounts()[0]
		home, other := a.Host(), elsewhere(w, a)
		w.hold(a)
		w.skip()
		setIn(w, a.DID(), func(b *store.Batch, r *store.Repo) {
			id, err := w.store.HostID(identity.HostOf(home.URL()))
			if err != nil {
				t.Fatal(err)
			}
			r.Pending.Host = id
			if state != store.StateSynced {
				storetest.Reach(b, r, state)
			}
			if state == store.StateResync || state == store.StateGone {
				r.Retry = store.Retry{Next: w.clock().Add(time.Hour).Unix(), Error: "its host does not answer"}
			}
		})
		from := other.Head()
		a.Migrate(other)
		w.sendTo(w.newFeed("ws"+other.URL()[len("http"):], true), other, from)
		w.until("the move is known", func() bool { return w.row(a).PDS == other.URL() })
		row := w.row(a)
		if h, known := w.store.HostByID(row.Pending.Host); !known || h.Name != identity.HostOf(other.URL()) {
			t.Errorf("%v: it is queued for %q, %v, and lives at %s", state, h.Name, known, other.URL())
		}
		if n := w.queued(home); n != 0 {
			t.Errorf("%v: %d are queued for its former host", state, n)
		}
	}
}

// queued is how many repositories wait for a host.
func (w *world) queued(h *simnet.Host) int64 {
	id, err := w.store.HostID(identity.HostOf(h.URL()))
	if err != nil {
		w.t.Fatal(err)
	}
	row, _ := w.store.HostByID(id)
	return row.Queued
}

// elsewhere is a host that is not the account's.
func elsewhere(w *world, a *simnet.Account) *simnet.Host {
	for _, h := range w.net.Hosts() {
		if h != a.Host() {
			return h
		}
	}
	w.t.Fatal("there is one host only")
	return nil
}

// oddDirectory answers with one PDS for all.
type oddDirectory struct {
	*directory
	pds string
}

func (d *oddDirectory) Resolve(ctx context.Context, did string) (identity.Identity, error) {
	ident, err := d.directory.Resolve(ctx, did)
	ident.PDS = d.pds
	d.directory.mu.Lock()
	defer d.directory.mu.Unlock()
	d.directory.cache[did] = ident
	return ident, err
}

// Whatever a document has in place of the host, no event fails because of it.
func TestDocumentsOfOddHosts(t *testing.T) {
	t.Parallel()
	for _, pds := range []string{"", "://", "http://", "http://[::1", "http://%zz", "javascript:alert(1)", "http://a:b:c/d?e#f", "\x00\xff"} {
		t.Run(fmt.Sprintf("%q", pds), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(w *world) { w.opts.Directory = &oddDirectory{w.opts.Directory.(*directory), pds} })
			a, home := w.net.Accounts()[0], w.net.Accounts()[0].Host()
			w.hold(a)
			w.skip()
			a.AnnounceIdentity()
			w.put(a, "app.test.x/one", "1")
			w.pass()
			w.equal(a)
			own, from := w.newFeed("ws"+home.URL()[len("http"):], true), home.Head()
			w.put(a, "app.test.x/two", "1")
			w.sendTo(own, home, from)
			w.until("the host is not believed", func() bool { return own.Idle() && own.Refused() == 1 })
			w.pass() // by the relay
			w.equal(a)
			// A commit that does not fit spends the budget of whatever host this is.
			w.net.RelayHost().InjectStream(simnet.StreamFault{Kind: simnet.StreamTooBig, DID: a.DID(), Count: 1})
			w.put(a, "app.test.x/three", "1")
			w.pass()
			if row := w.row(a); row.State != store.StatePending {
				t.Errorf("row is %s", row.State)
			}
		})
	}
}

// Documents of did:web are at hosts that anyone may run. However many of them do not answer, the
// keys of other accounts are looked up.
func TestSlowWebsDelayNoOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *world) { w.opts.Lookups = 4 })
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	identityOf := func(did string, seq int) []byte {
		return encode(header("#identity"), map[string]any{"seq": seq, "did": did, "time": "2026-01-02T03:04:05Z", "handle": "a.example"})
	}
	var answers []func()
	for i := range 40 {
		did := fmt.Sprintf("did:web:host%d.example", i)
		setIn(w, did, func(b *store.Batch, r *store.Repo) { storetest.Reach(b, r, store.StateResync) })
		answers = append(answers, w.dir.stall(did))
		if err := w.feed.Send(t.Context(), identityOf(did, 1+i)); err != nil {
			t.Fatal(err)
		}
	}
	w.until("all wait", func() bool { return w.r.Parked() == 40 })
	other := w.newFeed("ws://other.test", false)
	set(w, a, func(r *store.Repo) { r.Resolved = 0 })
	w.put(a, "app.test.x/one", "1")
	w.sendTo(other, w.net.RelayHost(), w.sent)
	w.until("the other goes on", func() bool { return w.row(a).Rev == a.Truth().Rev })
	w.equal(a)
	if n := w.r.Parked(); n != 40 {
		t.Errorf("%d wait still, want 40", n)
	}
	for _, answer := range answers {
		answer()
	}
	w.settle()
}

// TestGoneWhereItWas: an account that is gone at its host is asked about again, at once, when its
// document names another.
func TestGoneWhereItWas(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	set(w, a, func(r *store.Repo) {
		r.State, r.Status, r.Retry.Next = store.StateGone, store.StatusDeactivated, w.clock().Add(24*time.Hour).Unix()
	})
	w.net.RelayHost().InjectStream(simnet.StreamFault{Kind: simnet.StreamGap, DID: a.DID(), Type: "#account"})
	a.Migrate(w.net.Host(1 - slices.Index(w.net.Hosts(), a.Host())))
	w.pass()
	if next := w.row(a).Retry.Next; next > w.clock().Unix() {
		t.Errorf("asked again in %d s", next-w.clock().Unix())
	}
}

// TestIdentityBehindAnother: an #identity is left to a later one that waits behind it only if that
// one has the document read too, and comes from the same source: else a crash may find the cursor
// behind the one, and the other not done.
func TestIdentityBehindAnother(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		other bool          // the later one comes from another relay
		after time.Duration // its time, less that of what is known
		reads int           // of the document, beside that for the commit
	}{
		"of the same source":               {false, 2 * time.Minute, 1},
		"of the same source, and known":    {false, 0, 1},
		"of another source":                {true, 2 * time.Minute, 2},
		"of another source, and known":     {true, 0, 1},
		"of another source, the same time": {true, time.Minute, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.net.Accounts()[0]
			w.hold(a)
			w.skip()
			known := w.clock().Add(-time.Hour).Truncate(time.Microsecond)
			set(w, a, func(r *store.Repo) { r.Resolved, r.IdentityTime = 0, known.UnixMicro() })
			answer := w.dir.stall(a.DID())
			w.put(a, "app.test.x/one", "1") // waits for the key, and holds up what follows
			w.send()
			w.until("the lookup", func() bool { return w.r.Parked() == 1 })
			feeds := []*feed{w.feed, w.feed}
			if c.other {
				feeds[1] = w.newFeed("ws://other.test", false)
			}
			for i, after := range []time.Duration{time.Minute, c.after} {
				at := known.Add(after).UTC().Format(time.RFC3339Nano)
				message := encode(header("#identity"), map[string]any{"seq": 1_000_000 + i, "did": a.DID(), "time": at})
				if err := feeds[i].Send(t.Context(), message); err != nil {
					t.Fatal(err)
				}
			}
			answer()
			w.settle()
			w.until("the events are done", func() bool { return feeds[0].Idle() && feeds[1].Idle() })
			latest := known.Add(max(time.Minute, c.after)).UnixMicro()
			if row, n := w.row(a), w.dir.lookups(a.DID()); row.IdentityTime != latest || n != 1+c.reads {
				t.Errorf("the identity is as of %d, want %d; %d lookups, want %d", row.IdentityTime, latest, n, 1+c.reads)
			}
		})
	}
}
