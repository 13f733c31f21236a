package backfill_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/ingest/identity"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"
)

// drains records the DIDs for which Options.Drain was called.
type drains struct {
	mu   sync.Mutex
	dids []string // mu guards
}

func (d *drains) add(did string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dids = append(d.dids, did)
}

func (d *drains) count(did string) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, other := range d.dids {
		if other == did {
			n++
		}
	}
	return n
}

// live handles a commit as the live side does for a repository that is not synced.
func (w *world) live(did, rev string) (buffered bool) {
	w.T.Helper()
	unlock := w.Store.Lock(did)
	defer unlock()
	r := w.Row(did)
	b := w.Store.NewBatch()
	if r.State == store.StatePending && w.Store.Fetching(did) {
		buffered = b.Buffer(&r, rev, []byte("the commit of "+rev))
	} else {
		r.SeenRev = max(r.SeenRev, rev)
	}
	b.PutRepo(&r)
	if err := b.CommitSync(); err != nil {
		w.T.Fatal(err)
	}
	return buffered
}

// window is a way a fetch ends while a commit is buffered.
type window struct {
	name   string
	before func(w *world, a *simnet.Account) // the fetch begins
	during func(w *world, a *simnet.Account) // after the commit was buffered
	state  store.State
	left   int // commits that stay buffered
}

func windows() []window {
	held := func(w *world, a *simnet.Account) {
		w.Add(a.DID())
		w.Settle(a.DID())
	}
	inject := func(f simnet.Fault) func(w *world, a *simnet.Account) {
		return func(w *world, a *simnet.Account) {
			f.DID = a.DID()
			a.Host().Inject(f)
		}
	}
	again := func(f func(r *store.Repo)) func(w *world, a *simnet.Account) {
		return func(w *world, a *simnet.Account) { w.Change(a.DID(), f) }
	}
	return []window{
		{name: "first copy", state: store.StateDraining, left: 1},
		{name: "difference", before: func(w *world, a *simnet.Account) {
			held(w, a)
			if _, err := a.Mutate(10); err != nil {
				w.T.Fatal(err)
			}
		}, state: store.StateDraining, left: 1},
		{name: "recheck", before: func(w *world, a *simnet.Account) {
			held(w, a)
			again(func(r *store.Repo) { r.Recheck = true })(w, a)
		}, state: store.StateDraining, left: 1},
		{name: "failure", before: inject(simnet.Fault{Kind: simnet.BadSignature}), state: store.StateResync},
		{name: "failure of a difference", before: func(w *world, a *simnet.Account) {
			held(w, a)
			inject(simnet.Fault{Kind: simnet.MissingNode})(w, a)
		}, state: store.StateResync},
		{name: "gone", before: func(_ *world, a *simnet.Account) { a.SetStatus(simnet.Deactivated) }, state: store.StateGone},
		// The next attempt does not get the rev either: the repository lags.
		{name: "stale first copy", during: again(func(r *store.Repo) { r.Attempt++ }), state: store.StateResync},
		{name: "stale difference", before: held, during: again(func(r *store.Repo) { r.Attempt++ }), state: store.StateResync},
		{name: "stale failure", before: inject(simnet.Fault{Kind: simnet.Truncated, Count: 1}),
			during: again(func(r *store.Repo) { r.Attempt++ }), state: store.StateResync},
		{name: "untracked", during: func(w *world, a *simnet.Account) { w.Untrack(a.DID()) }, state: store.StateIdle},
		// Its host has moved it: the commits buffered before do not continue the copy of the other
		// host.
		{name: "moved", before: func(w *world, a *simnet.Account) {
			old, err := w.Dir.Resolve(w.T.Context(), a.DID())
			if err != nil {
				w.T.Fatal(err)
			}
			host, err := w.Store.HostID(strings.TrimPrefix(old.PDS, "http://"))
			if err != nil {
				w.T.Fatal(err)
			}
			w.Know(a.DID())
			w.Change(a.DID(), func(r *store.Repo) { r.Key, r.PDS, r.Pending.Host = old.Key, old.PDS, host })
			a.Migrate(w.Net.Host(1))
		}, state: store.StateResync},
	}
}

// TestWindow: live commits are buffered from before the host is asked until the fetch ends. After a
// complete copy they are drained; every other ending drops them and keeps their rev as an announced
// one.
func TestWindow(t *testing.T) {
	t.Parallel()
	cases := windows()
	var d drains
	w := newWorld(t, worldOptions{
		net:    simnet.Options{Hosts: 2, Repos: 2 * len(cases), RecordsMedian: 20},
		runner: backfill.Options{Drain: d.add, Concurrency: 64, PerHost: 64},
	})
	accounts := slices.DeleteFunc(slices.Clone(w.Net.Accounts()), func(a *simnet.Account) bool { return a.Host() != w.Net.Host(0) })
	for i, c := range cases {
		a := accounts[i]
		did := a.DID()
		slow := w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.Latency, Delay: 150 * time.Millisecond, DID: did, Endpoint: "*"})
		if c.before != nil {
			c.before(w, a)
		}
		was := slow.Fired()
		if w.Store.Fetching(did) {
			t.Fatalf("%s: it is said to be fetched before it is", c.name)
		}
		w.Add(did)
		w.Until("the fetch to begin", func() bool { return slow.Fired() > was })
		rev := a.NextTID()
		if !w.live(did, rev) {
			t.Fatalf("%s: its commits are not buffered while it is fetched", c.name)
		}
		if c.during != nil {
			c.during(w, a)
		}
		w.Settle(did)
		w.Until("the task to end", func() bool { return !w.Run.InFlight(did) })
		r := w.Row(did)
		if n := w.Store.Buffered(did); r.State != c.state || n != c.left || w.Store.Fetching(did) {
			t.Errorf("%s: %v with %d buffered, fetching %v (%+v)", c.name, r.State, n, w.Store.Fetching(did), r.Retry)
		}
		if seen := r.SeenRev == rev; seen != (c.left == 0) {
			t.Errorf("%s: the rev seen is %q, %s was", c.name, r.SeenRev, rev)
		}
		if d.count(did) != c.left {
			t.Errorf("%s: asked %d times to drain it", c.name, d.count(did))
		}
		w.Gauges()
		slow.Clear()
	}
}

// TestWindowOfBefore: commits that an earlier fetch left to be drained do not continue the copy of
// the next one.
func TestWindowOfBefore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1, RecordsMedian: 20}})
	did := w.Net.DIDs()[0]
	slow := w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.Latency, Delay: 100 * time.Millisecond})
	w.Add(did)
	w.Until("the fetch to begin", func() bool { return slow.Fired() > 0 })
	rev := w.Net.Account(did).NextTID()
	if !w.live(did, rev) {
		t.Fatal("not buffered")
	}
	w.Settle(did)
	if s := w.Row(did).State; s != store.StateDraining {
		t.Fatal(s)
	}
	w.Add(did)
	w.Settle(did)
	if r := w.Row(did); r.State != store.StateResync || r.SeenRev != rev || w.Store.Buffered(did) != 0 {
		t.Errorf("%v, seen %q, %d buffered", r.State, r.SeenRev, w.Store.Buffered(did))
	}
}

// TestWindowAtShutdown: a task that is stopped leaves the row pending, and no buffered commits with
// possible gaps.
func TestWindowAtShutdown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 2, RecordsMedian: 20}, store: store.Options{GroupAge: time.Hour}})
	w.Stop()
	w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.Hang})
	w.start(backfill.Options{})
	did := w.Net.DIDs()[0]
	w.Add(did)
	w.Until("the fetch to begin", func() bool { return w.Net.Host(0).Log().InFlight > 0 })
	rev := w.Net.Account(did).NextTID()
	if !w.live(did, rev) {
		t.Fatal("not buffered")
	}
	w.Stop()
	if r := w.Row(did); r.State != store.StatePending || r.SeenRev != rev || w.Store.Buffered(did) != 0 || w.Store.Fetching(did) {
		t.Errorf("%v, seen %q, %d buffered, fetching %v", r.State, r.SeenRev, w.Store.Buffered(did), w.Store.Fetching(did))
	}
	w.Net.Host(0).ClearFaults()
	if _, err := w.Net.Account(did).Mutate(3); err != nil {
		t.Fatal(err)
	}
	w.start(backfill.Options{})
	w.Settle(did)
	w.Equal(did)
}

// TestLag: a host that has an older rev than was announced is asked again with growing delays, and
// then believed.
func TestLag(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 2}})
	for _, held := range []bool{false, true} {
		did := w.Net.DIDs()[0]
		if held {
			did = w.Net.DIDs()[1]
			w.Add(did)
			w.Settle(did)
		}
		announced := w.Net.Account(did).NextTID()
		if !held {
			w.Know(did)
		}
		w.Change(did, func(r *store.Repo) { r.SeenRev = announced })
		w.Add(did)
		for n := uint32(2); n <= 4; n++ { // the first request follows the copy at once
			w.Settle(did)
			r := w.Row(did)
			left := time.Unix(r.Retry.Next, 0).Sub(w.Clock.Now())
			want := time.Minute << (n - 1)
			says := fmt.Sprintf("the host has rev %s, %s was seen", r.Rev, announced)
			if r.State != store.StateResync || r.Retry.Kind != store.Generic || r.Retry.Count != n || r.SeenRev != announced || r.Retry.Error != says || r.Records == 0 {
				t.Fatalf("after %d copies: %v %+v, seen %q", n, r.State, r.Retry, r.SeenRev)
			}
			if left < want*9/10-5*time.Second || left > want*11/10+time.Second {
				t.Errorf("after %d copies: again in %s", n, left)
			}
			w.Clock.Advance(left + 2*time.Second)
			w.Run.Wake()
			w.Until("the next attempt", func() bool { r := w.Row(did); return r.State == store.StateSynced || r.Retry.Count > n })
		}
		w.Settle(did)
		if r := w.Row(did); r.SeenRev != "" {
			t.Errorf("still to be seen: %s", r.SeenRev)
		}
		w.Equal(did)
		if n := len(w.Net.Host(0).Log().Fetches[did]); n != 1 && !held || n != 2 && held {
			t.Errorf("%d transfers", n)
		}
		// A host that catches up ends the lag.
		w.Change(did, func(r *store.Repo) { r.SeenRev = w.Net.Account(did).NextTID() })
		w.Add(did)
		w.Settle(did)
		if _, err := w.Net.Account(did).Mutate(3); err != nil {
			t.Fatal(err)
		}
		w.Clock.Advance(3 * time.Minute)
		w.Run.Wake()
		w.Until("the repository to be synced", func() bool { return w.Row(did).State == store.StateSynced })
		w.Settle(did)
		w.Equal(did)
	}
}

// TestLagOfLate: a rev that was announced while the last copy was made is not dropped with it,
// because no host was asked for it yet.
func TestLagOfLate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}})
	did := w.Net.DIDs()[0]
	w.Add(did)
	w.Settle(did)
	a := w.Net.Account(did)
	w.Change(did, func(r *store.Repo) {
		r.SeenRev, r.Retry = a.NextTID(), store.Retry{Count: 4, Since: 1, Error: "the host has rev 3a, 3b was seen", Lagging: true}
	})
	slow := w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.Latency, Delay: 150 * time.Millisecond})
	w.Add(did)
	w.Until("the fetch to begin", func() bool { return slow.Fired() > 0 })
	late := a.NextTID()
	w.Change(did, func(r *store.Repo) { r.SeenRev = late })
	w.Settle(did)
	if r := w.Row(did); r.State != store.StateResync || r.SeenRev != late || r.Retry.Count != 5 || r.Retry.Since != 1 {
		t.Errorf("%v, seen %q instead of %q, %+v", r.State, r.SeenRev, late, r.Retry)
	}
}

// TestLagOfDrain: the count of answers with an older rev is kept while commits wait to be drained,
// which may or may not bring the rev.
func TestLagOfDrain(t *testing.T) {
	t.Parallel()
	for _, lagged := range []bool{false, true} {
		w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}})
		did := w.Net.DIDs()[0]
		a := w.Net.Account(did)
		before := store.Retry{Count: 3, Since: 1, Error: "broken"}
		if lagged {
			before.Error, before.Lagging = "the host has rev 3a, 3b was seen", true
		}
		slow := w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.Latency, Delay: 150 * time.Millisecond})
		first, seen := a.NextTID(), a.NextTID()
		w.Add(did)
		w.Change(did, func(r *store.Repo) { r.SeenRev, r.Retry = seen, before })
		w.Until("the fetch to begin", func() bool { return slow.Fired() > 0 && w.Store.Fetching(did) })
		if !w.live(did, first) {
			t.Fatal("nothing is buffered")
		}
		w.Settle(did)
		want := store.Retry{}
		if lagged {
			want = before
		}
		if r := w.Row(did); r.State != store.StateDraining || r.SeenRev != seen || r.Retry != want {
			t.Errorf("%v, seen %q instead of %q, %+v instead of %+v", r.State, r.SeenRev, seen, r.Retry, want)
		}
	}
}

// TestDesynchronized: a row that the live side deferred is fetched when it is due, or after Wake.
func TestDesynchronized(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}})
	did := w.Net.DIDs()[0]
	w.Add(did)
	w.Settle(did)
	c, err := w.Net.Account(did).Mutate(5)
	if err != nil {
		t.Fatal(err)
	}
	w.Change(did, func(r *store.Repo) {
		r.State, r.Attempt, r.SeenRev = store.StateResync, r.Attempt+1, c.Rev
		r.Pending.Priority = store.PriorityRetry
		r.Retry = store.Retry{Kind: store.Generic, Next: w.Clock.Now().Add(10 * time.Minute).Unix(), Error: "commit does not follow"}
	})
	w.Run.Wake()
	w.looked()
	if r := w.Row(did); r.State != store.StateResync {
		t.Fatalf("%v before it is due", r.State)
	}
	w.Clock.Advance(11 * time.Minute)
	w.Run.Wake()
	w.Until("it to be fetched", func() bool { return w.Row(did).State == store.StateSynced })
	w.Settle(did)
	w.Equal(did)
}

// TestOvertaken: an identity event that arrives during a fetch is newer than the document of the
// fetch.
func TestOvertaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}})
	did := w.Net.DIDs()[0]
	began := w.Clock.Now().Unix()
	w.Add(did)
	w.Settle(did)
	w.Equal(did)
	if r := w.Row(did); r.Resolved < began || r.Resolved > w.Clock.Now().Unix() {
		t.Errorf("its document was read at %d, the copy began at %d", r.Resolved, began)
	}
	head := storetest.Head(w.T, w.Store)
	for _, resolved := range []int64{0, began + 5} { // the new document was unavailable, available
		slow := w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.Latency, Delay: 150 * time.Millisecond})
		w.Add(did)
		w.Until("the fetch to begin", func() bool { return slow.Fired() > 0 })
		w.Change(did, func(r *store.Repo) {
			r.Handle, r.Resolved = "new.sim.test", resolved
			r.IdentityTime++
		})
		w.Settle(did)
		if r := w.Row(did); r.Handle != "new.sim.test" || r.Resolved != resolved {
			t.Errorf("handle %s, resolved %d, want %d", r.Handle, r.Resolved, resolved)
		}
		slow.Clear()
	}
	if e := w.Events(did, head+1); len(e) > 0 {
		t.Errorf("events %v", e)
	}
}

// TestOvertakenAtFirst: the document of a first copy may be older than an identity event, so it
// must be read again.
func TestOvertakenAtFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}})
	did := w.Net.DIDs()[0]
	slow := w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.Latency, Delay: 150 * time.Millisecond})
	w.Add(did)
	w.Until("the fetch to begin", func() bool { return slow.Fired() > 0 })
	w.Change(did, func(r *store.Repo) { r.IdentityTime++ })
	w.Settle(did)
	if r := w.Row(did); r.Key == "" || r.PDS == "" || r.Resolved != 0 {
		t.Errorf("key %q of %q, resolved %d", r.Key, r.PDS, r.Resolved)
	}
}

// TestGoneOvertaken: an answer that the account is gone does not count if the firehose brought an
// event of the account since the task began. An account that moves is deactivated at its former
// host.
func TestGoneOvertaken(t *testing.T) {
	t.Parallel()
	for name, tell := range map[string]func(*store.Repo){
		"account":  func(r *store.Repo) { r.AccountTime++ },
		"identity": func(r *store.Repo) { r.IdentityTime++ },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}})
			did := w.Net.DIDs()[0]
			slow := w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.Latency, Delay: 150 * time.Millisecond})
			gone := w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.Unavailable, Account: simnet.Deactivated, Count: 1})
			w.Add(did)
			w.Until("the fetch to begin", func() bool { return slow.Fired() > 0 })
			w.Change(did, tell)
			w.Until("it to be fetched", func() bool { return w.Row(did).State == store.StateSynced })
			w.Settle(did)
			w.Equal(did)
			if gone.Fired() != 1 || w.Row(did).Status != store.StatusActive {
				t.Errorf("fired %d, status %s", gone.Fired(), w.Row(did).Status)
			}
			for _, e := range w.Events(did, 1) {
				if strings.HasPrefix(e, "account") {
					t.Errorf("event %s", e)
				}
			}
		})
	}
}

// overtaken is a directory that calls a hook once, after it has read an answer.
type overtaken struct {
	backfill.Directory
	then func(did string)
	once sync.Once
}

func (d *overtaken) Resolve(ctx context.Context, did string) (identity.Identity, error) {
	id, err := d.Directory.Resolve(ctx, did)
	d.once.Do(func() { d.then(did) })
	return id, err
}

// TestGoneWhereItWas: the document was read, the account moved, the firehose brought the event, and
// then the host in the old document was asked.
func TestGoneWhereItWas(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 2, Repos: 1}})
	a := w.Net.Accounts()[0]
	w.Add(a.DID())
	w.Settle(a.DID())
	head := storetest.Head(w.T, w.Store)
	w.Stop()
	w.start(backfill.Options{Directory: &overtaken{Directory: w.Dir, then: func(did string) {
		a.Migrate(w.Net.Host(1))
		w.Change(did, func(r *store.Repo) {
			r.IdentityTime++
			r.AccountTime++
			r.PDS = w.Net.Host(1).URL()
		})
	}}})
	w.Add(a.DID())
	w.Until("it to be fetched", func() bool { s := w.Row(a.DID()).State; return s == store.StateSynced || s == store.StateGone })
	w.Settle(a.DID())
	if r := w.Row(a.DID()); r.State != store.StateSynced || r.Status != store.StatusActive {
		t.Fatalf("it is %s, %s", r.State, r.Status)
	}
	w.Equal(a.DID())
	for _, e := range w.Events(a.DID(), head+1) {
		if strings.HasPrefix(e, "account") {
			t.Errorf("event %s", e)
		}
	}
}

// TestMovedWhileItWaits: an identity from a lookup before the repository waited for a permit is
// looked up again before the host's answer that the account is gone counts.
func TestMovedWhileItWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 2, Repos: 4}, runner: backfill.Options{PerHost: 1}})
	slow := w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.Latency, Delay: 300 * time.Millisecond})
	first, second := w.Net.Accounts()[0], w.Net.Accounts()[2] // both of host 0
	w.Add(first.DID())
	w.Until("the fetch to begin", func() bool { return slow.Fired() > 0 })
	w.Add(second.DID())
	w.Until("the document of the other to be read", func() bool { return w.Run.InFlight(second.DID()) && w.Net.PLCHost().Log().Requests["did"] == 2 })
	second.Migrate(w.Net.Host(1))
	w.Settle(first.DID(), second.DID())
	w.Equal(second.DID())
}

// TestEnqueuedWhileItEnds: a row that is enqueued again between the last batch of its task and the
// end of the task is skipped in the queue, because its DID is still in flight. It is fetched all
// the same.
func TestEnqueuedWhileItEnds(t *testing.T) {
	t.Parallel()
	var w *world
	var did string
	var once sync.Once
	o := worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}}
	o.store.Step = func(step string) {
		if step != "synced" || did == "" {
			return
		}
		if r, err := w.Store.Repo(did); err != nil || r.State != store.StateGone {
			return
		}
		once.Do(func() {
			w.ChangeIn(did, func(b *store.Batch, r *store.Repo) {
				r.Status = store.StatusActive
				b.Enqueue(r, store.PriorityRetry)
			})
			w.Run.Wake()
			if err := backfill.LookAtQueues(t.Context(), w.Run); err != nil {
				t.Error(err)
			}
		})
	}
	w = newWorld(t, o)
	w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.Unavailable, Account: simnet.Deactivated, Count: 1})
	did = w.Net.DIDs()[0]
	w.Add(did)
	w.Until("it to be fetched", func() bool { return w.Row(did).State == store.StateSynced })
	w.Settle(did)
	w.Equal(did)
}

// TestEnqueuedWhileFetched: the result of a fetch is dropped if a new attempt has begun since,
// though the repository is pending as before (invariant 4).
func TestEnqueuedWhileFetched(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}})
	did := w.Net.DIDs()[0]
	w.Add(did)
	w.Settle(did)
	slow := w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.Latency, Delay: 150 * time.Millisecond, Count: 1})
	w.Add(did)
	w.Until("the second fetch to begin", func() bool { return slow.Fired() > 0 && w.Store.Fetching(did) })
	w.ChangeIn(did, func(b *store.Batch, r *store.Repo) { b.Enqueue(r, store.PriorityRetry) })
	w.Settle(did)
	w.Equal(did)
	if n := len(w.Net.Host(0).Log().Fetches[did]); n != 3 {
		t.Errorf("it was fetched %d times: once, in vain, and for the new attempt make 3", n)
	}
}
