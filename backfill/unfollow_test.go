package backfill_test

import (
	"bytes"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/backfill/fetch"
	"cistern/filter"
	"cistern/ingest/simnet"
	"cistern/store"
)

const rare = "com.example.rare.thing"

// commits handles the last message of an account's host as the live side does while a repository is
// fetched.
func (w *world) commits(did, rev string) {
	w.T.Helper()
	messages := w.Net.Account(did).Host().Messages(0)
	defer w.Store.Lock(did)()
	r := w.Row(did)
	b := w.Store.NewBatch()
	if !w.Store.Fetching(did) || !b.Buffer(&r, rev, messages[len(messages)-1]) {
		w.T.Errorf("a commit of %s is not buffered", did)
	}
	b.PutRepo(&r)
	if err := b.CommitSync(); err != nil {
		w.T.Error(err)
	}
}

// TestForgetsOutdone: a commit that arrives during the fetch of a copy without a signal is not lost
// if it shows one; if it shows none, the same fetch forgets the repository.
func TestForgetsOutdone(t *testing.T) {
	t.Parallel()
	for _, collection := range []string{rare, posts} {
		w := newWorld(t, worldOptions{
			net:    simnet.Options{Seed: 4, Hosts: 1, Repos: 1, RecordsMedian: 15},
			runner: backfill.Options{Strategy: fetch.StrategyFull},
		})
		a := w.Net.Accounts()[0]
		w.refilter(filter.Config{Signals: []string{rare}})
		came := make(chan struct{})
		w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.Gate, Count: 1, Hook: func() {
			defer close(came)
			c, err := a.Put(collection+"/late", map[string]any{"$type": collection})
			if err != nil {
				t.Error(err)
				return
			}
			w.commits(a.DID(), c.Rev)
		}})
		w.follow(store.BySignal, a.DID())
		<-came
		if collection != rare {
			w.Until("it to be forgotten", func() bool { return !w.Known(a.DID()) })
			if n := w.Net.Host(0).Log().Requests["com.atproto.sync.getRepo"]; n != 1 {
				t.Errorf("%d fetches", n)
			}
			continue
		}
		w.Until("it to be followed", func() bool {
			w.Clock.Advance(time.Second)
			w.Run.Wake()
			return w.Known(a.DID()) && w.Row(a.DID()).State == store.StateSynced
		})
		w.converges(a.DID())
	}
}

// TestForgetsLagging: a host that does not have the rev by which an account was found is asked
// several times, and then believed.
func TestForgetsLagging(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Seed: 4, Hosts: 1, Repos: 2, RecordsMedian: 15}})
	dids := w.Net.DIDs()
	w.refilter(filter.Config{Signals: []string{rare}})
	w.Stop()
	for _, did := range dids {
		w.Change(did, func(r *store.Repo) {
			r.State, r.Tracked, r.SeenRev = store.StatePending, store.BySignal, "7zzzzzzzzzzzz"
		})
	}
	w.start(backfill.Options{})
	w.Settle(dids...)
	if _, err := w.Net.Account(dids[0]).Put(rare+"/a", map[string]any{"$type": rare}); err != nil {
		t.Fatal(err)
	}
	w.Change(dids[0], func(r *store.Repo) { r.SeenRev = w.Net.Account(dids[0]).Truth().Rev })
	w.Until("one to be followed, and the other forgotten", func() bool {
		w.Clock.Advance(time.Minute)
		w.Run.Wake()
		return w.Known(dids[0]) && w.Row(dids[0]).State == store.StateSynced && !w.Known(dids[1])
	})
}

// TestForgetsNobodyBehind: the stored copy shows no signal, but a newer commit exists: the next
// copy decides.
func TestForgetsNobodyBehind(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Seed: 4, Hosts: 1, Repos: 3, RecordsMedian: 15}})
	dids := w.Net.DIDs()
	w.refilter(filter.Config{Mode: filter.ModeFull})
	w.follow(store.ByNetwork, dids...)
	w.converges(dids...)
	w.Stop()
	for i, collection := range []string{rare, posts} {
		c, err := w.Net.Account(dids[i]).Put(collection+"/late", map[string]any{"$type": collection})
		if err != nil {
			t.Fatal(err)
		}
		w.Change(dids[i], func(r *store.Repo) {
			r.State, r.SeenRev, r.Recheck = store.StateResync, c.Rev, true
			r.Retry = store.Retry{Kind: store.Generic, Count: 1, Next: w.Clock.Now().Unix() + 3600, Error: "test"}
		})
	}
	w.refilter(filter.Config{Signals: []string{rare}})
	w.start(backfill.Options{})
	w.converges(dids[2])
	if w.Known(dids[2]) {
		t.Error("who is not behind is not forgotten")
	}
	w.Until("one to be followed, and the other forgotten", func() bool {
		w.Clock.Advance(time.Minute)
		w.Run.Wake()
		return w.Known(dids[0]) && w.Row(dids[0]).State == store.StateSynced && !w.Known(dids[1])
	})
	w.converges(dids...)
}

// TestSweepByEqualFilter: a sweep begun under an earlier filter continues under one that keeps the
// same records.
func TestSweepByEqualFilter(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Seed: 3, Hosts: 1, Repos: 1, RecordsMedian: 40}})
	did := w.Net.DIDs()[0]
	w.Add(did)
	w.converges(did)
	w.Stop()
	w.refilter(filter.Config{Collections: []string{posts}})
	w.Change(did, func(r *store.Repo) { r.Filter, r.Sweep = 1, true }) // as the pass begins with it
	w.refilter(filter.Config{Collections: []string{posts}, Signals: []string{rare}})
	w.start(backfill.Options{})
	w.converges(did)
}

// TestRefilterWaitsForOne: the pass is not over while a single repository cannot be fetched yet.
func TestRefilterWaitsForOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Seed: 3, Hosts: 1, Repos: 1, RecordsMedian: 40}})
	did := w.Net.DIDs()[0]
	w.refilter(filter.Config{Collections: []string{posts}})
	w.Add(did)
	w.converges(did)
	w.Stop()
	change := func(f func(b *store.Batch, r *store.Repo)) {
		defer w.Store.Lock(did)()
		r := w.Row(did)
		b := w.Store.NewBatch()
		f(b, &r)
		b.PutRepo(&r)
		if err := b.CommitSync(); err != nil {
			t.Fatal(err)
		}
	}
	change(func(b *store.Batch, r *store.Repo) { b.Enqueue(r, store.PriorityRetry) })
	// A commit that arrived during the fetch must still be applied.
	change(func(b *store.Batch, r *store.Repo) {
		b.Buffer(r, r.Rev, []byte("a commit"))
		b.Complete(r)
	})
	w.refilter(filter.Config{Collections: []string{posts, likes}})
	w.start(backfill.Options{})
	w.Until("the pass to meet it", func() bool { return w.Row(did).Lacks })
	change(func(b *store.Batch, r *store.Repo) {
		b.DropBuffer(r)
		b.Complete(r)
		r.SeenRev = ""
	})
	w.converges(did)
}

// TestRefilterSeesFirstFetches: a first copy that is made by an earlier filter during the pass is
// adapted to the filter, too.
func TestRefilterSeesFirstFetches(t *testing.T) {
	t.Parallel()
	var rounds atomic.Int64 // of the pass
	log := slog.New(slog.NewTextHandler(writerFunc(func(b []byte) (int, error) {
		if bytes.Contains(b, []byte("a round of refiltering is over")) {
			rounds.Add(1)
		}
		return len(b), nil
	}), &slog.HandlerOptions{Level: slog.LevelDebug}))
	w := newWorld(t, worldOptions{
		net:    simnet.Options{Seed: 3, Hosts: 1, Repos: 1, RecordsMedian: 40},
		runner: backfill.Options{Strategy: fetch.StrategyFull, Logger: log},
	})
	did := w.Net.DIDs()[0]
	w.refilter(filter.Config{Collections: []string{posts}})
	w.ends(func() bool { return true })
	came := make(chan struct{})
	w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.Gate, Count: 1, Hook: func() {
		defer close(came)
		w.refilter(filter.Config{Collections: []string{posts, likes}})
		w.Until("a round, or the end of a pass that does not wait for this fetch", func() bool {
			_, running, err := w.Run.Refilter()
			return rounds.Load() > 0 || err != nil || !running
		})
	}})
	w.Add(did)
	<-came
	w.converges(did)
}

// TestRefilterResumed: a pass that resumes after a crash starts over when it reaches its end,
// because the repositories that it skipped before the crash are unknown.
func TestRefilterResumed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Seed: 3, Hosts: 1, Repos: 4, RecordsMedian: 20}})
	dids := w.Net.DIDs()
	w.refilter(filter.Config{Collections: []string{posts}})
	w.Add(dids...)
	w.converges(dids...)
	w.Stop()
	w.refilter(filter.Config{Collections: []string{posts, likes}})
	b := w.Store.NewBatch()
	b.PutRefilterCursor(store.RefilterCursor{Begun: true, After: slices.Max(dids)})
	if err := b.CommitSync(); err != nil {
		t.Fatal(err)
	}
	w.start(backfill.Options{})
	w.converges(dids...)
}

// TestForgetsUnfetched: a repository that was found in the whole network, and not fetched before
// the filter changed to signals, is judged by the collections that its host reports; only one with
// a signal is fetched.
func TestForgetsUnfetched(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Seed: 4, Hosts: 1, Repos: 20, RecordsMedian: 15}})
	dids := w.Net.DIDs()
	w.refilter(filter.Config{Mode: filter.ModeFull})
	w.Stop()
	w.follow(store.ByNetwork, dids...)
	w.refilter(filter.Config{Signals: []string{notes}})
	w.start(backfill.Options{})
	w.converges(dids...)
	kept := 0
	for _, did := range dids {
		if w.Known(did) != w.has(did, notes) {
			t.Errorf("%s is known: %v", did, w.Known(did))
		}
		if w.has(did, notes) {
			kept++
		}
	}
	if n := w.Net.Host(0).Log().Requests["com.atproto.sync.getRepo"]; n != kept || kept == len(dids) || kept == 0 {
		t.Errorf("%d are kept, and %d were fetched", kept, n)
	}
}

// TestForgetsGone: an unavailable repository that was found in the whole network is asked for at
// most once more when that network is no longer followed.
func TestForgetsGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Seed: 4, Hosts: 1, Repos: 2, RecordsMedian: 15}})
	dids := w.Net.DIDs()
	w.refilter(filter.Config{Mode: filter.ModeFull})
	w.Stop()
	for _, did := range dids {
		w.Net.Account(did).SetStatus(simnet.Deactivated)
	}
	// The pass runs before they are gone.
	w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.Latency, Delay: 300 * time.Millisecond, Endpoint: "*"})
	w.follow(store.ByNetwork, dids[0])
	w.follow(store.BySignal, dids[1])
	w.refilter(filter.Config{Signals: []string{notes}})
	w.start(backfill.Options{})
	w.ends(func() bool { return true })
	w.Clock.Advance(30 * time.Hour)
	w.Run.Wake()
	w.Until("one to be forgotten", func() bool { return !w.Known(dids[0]) })
	want := []string{"account deactivated", "account active"}
	// Events are published once they are durable.
	w.Until("readers to be told", func() bool { return slices.Equal(w.Events(dids[0], 1), want) })
	w.Until("the other to be looked at", func() bool { return w.Row(dids[1]).Retry.Next > w.Clock.Now().Unix() })
}

type writerFunc func(b []byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
