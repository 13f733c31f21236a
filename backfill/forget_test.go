package backfill_test

import (
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/backfill/fetch"
	"cistern/filter"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"
)

// has reports whether an account holds a record of a collection.
func (w *world) has(did, collection string) bool {
	for path := range maps.Keys(w.Net.Account(did).Truth().Records) {
		if strings.HasPrefix(path, collection+"/") {
			return true
		}
	}
	return false
}

// follow has repositories followed for a reason.
func (w *world) follow(why store.Why, dids ...string) {
	w.T.Helper()
	for _, did := range dids {
		w.Change(did, func(r *store.Repo) {
			r.State, r.Tracked = store.StatePending, why
			r.Pending = store.PendingKey{Host: r.Pending.Host, Priority: store.PriorityDiscovery}
			r.Attempt++
		})
	}
	w.Run.Wake()
}

// TestForgets: a repository that was found in a whole network, or for a signal, is followed only
// while it holds a record that a current signal names, be the record stored here or reported by the
// host. A repository that was requested by name stays.
func TestForgets(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		before  filter.Config
		after   filter.Config
		fetches bool
	}{
		{"seen", filter.Config{Mode: filter.ModeFull}, filter.Config{Signals: []string{notes}}, false},
		{"seen though narrowed", filter.Config{Mode: filter.ModeFull},
			filter.Config{Signals: []string{notes}, Collections: []string{posts}}, false},
		{"seen in what is shelved", filter.Config{Mode: filter.ModeFull, Store: filter.StoreAll, Collections: []string{posts}},
			filter.Config{Signals: []string{notes}, Store: filter.StoreAll, Collections: []string{posts}}, false},
		{"not seen", filter.Config{Mode: filter.ModeFull, Collections: []string{posts}},
			filter.Config{Signals: []string{notes}, Collections: []string{posts}}, true},
		{"another signal", filter.Config{Signals: []string{profile}, Collections: []string{posts}},
			filter.Config{Signals: []string{"com.example.*"}, Collections: []string{posts}}, true},
		{"one signal more", filter.Config{Signals: []string{profile}, Collections: []string{posts}},
			filter.Config{Signals: []string{profile, notes}, Collections: []string{posts}}, false},
		{"no signal", filter.Config{Mode: filter.ModeFull, Collections: []string{posts}}, filter.Config{Collections: []string{posts}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{net: simnet.Options{Seed: 4, Hosts: 2, Repos: 24, RecordsMedian: 15}})
			dids := w.Net.DIDs()
			w.refilter(c.before)
			w.follow(store.ByNetwork, dids[:8]...)
			w.follow(store.BySignal, dids[8:16]...)
			w.follow(store.ByOperator, dids[16:]...)
			w.converges(dids...)
			for _, did := range dids {
				if !w.Known(did) {
					t.Fatalf("%s was forgotten", did)
				}
			}
			w.Net.Host(0).ResetLog()
			w.refilter(c.after)
			w.converges(dids...)
			f := w.Store.Filter()
			kept, forgotten := 0, 0
			for i, did := range dids {
				follows := i >= 16 || f.Signal([]byte(notes)) && w.has(did, notes) || f.Signal([]byte(profile)) && w.has(did, profile)
				if w.Known(did) != follows {
					t.Errorf("%s is known: %v", did, !follows)
				}
				if follows && i < 16 {
					kept++
				}
				if !follows {
					forgotten++
				}
			}
			t.Logf("%d kept, %d forgotten", kept, forgotten)
			if asked := len(w.Net.Host(0).Log().Requests); (asked > 0) != c.fetches {
				t.Errorf("the host was asked %d kinds of questions", asked)
			}
		})
	}
}

// TestForgetsUnsignalled: a repository without a record that a signal names is forgotten by the
// first fetch, whole or in parts.
func TestForgetsUnsignalled(t *testing.T) {
	t.Parallel()
	for _, strategy := range []fetch.Strategy{fetch.StrategySparse, fetch.StrategyFull} {
		w := newWorld(t, worldOptions{
			net:    simnet.Options{Seed: 4, Hosts: 2, Repos: 16, RecordsMedian: 15},
			runner: backfill.Options{Strategy: strategy},
		})
		dids := w.Net.DIDs()
		w.refilter(filter.Config{Signals: []string{notes}, Collections: []string{posts}})
		w.follow(store.BySignal, dids...)
		w.converges(dids...)
		for _, did := range dids {
			if w.Known(did) != w.has(did, notes) {
				t.Errorf("%s is known: %v", did, w.Known(did))
			}
		}
	}
}

// TestExcludes: an excluded repository is forgotten, whatever its state and size and whichever
// source requested it, and comes back when it is requested again.
func TestExcludes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Seed: 6, Hosts: 2, Repos: 8, RecordsMedian: 900, RecordsMax: 2000}})
	dids := w.Net.DIDs()
	w.refilter(filter.Config{Collections: []string{posts}, Store: filter.StoreAll})
	w.Add(dids...)
	w.converges(dids...)
	w.Untrack(dids[2])
	w.Net.Account(dids[3]).SetStatus(simnet.Deactivated)
	w.Add(dids[3])
	w.Settle(dids[3])
	if r := w.Row(dids[3]); r.State != store.StateGone {
		t.Fatalf("%+v", r)
	}
	w.Stop()
	w.Add(dids[4]) // waits
	from := storetest.Head(w.T, w.Store) + 1
	w.refilter(filter.Config{Collections: []string{posts}, Store: filter.StoreAll, Excludes: dids[:5]})
	w.start(backfill.Options{})
	w.converges(dids...)
	for i, did := range dids {
		if w.Known(did) != (i >= 5) {
			t.Errorf("%d is known: %v", i, w.Known(did))
		}
	}
	// The unavailable repository has no data.
	if told := w.Events(dids[3], from); !slices.Equal(told, []string{"account active"}) {
		t.Errorf("of what is hidden, %d events are told: %.200q", len(told), told)
	}
	w.Net.Host(0).ResetLog()
	w.Add(dids[0]) // requested although it is excluded
	w.Until("it to be forgotten", func() bool { return !w.Known(dids[0]) })
	if n := len(w.Net.Host(0).Log().Requests); n != 0 {
		t.Errorf("its host was asked %d kinds of questions", n)
	}
	w.Net.Account(dids[3]).SetStatus(simnet.Active)
	w.refilter(filter.Config{})
	w.Add(dids...)
	w.converges(dids...)
}

// TestRefilterWhileFetched changes the filter while hosts answer: the answer was requested by the
// filter before.
func TestRefilterWhileFetched(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{
		net:    simnet.Options{Seed: 8, Hosts: 1, Repos: 6, RecordsMedian: 30},
		runner: backfill.Options{Strategy: fetch.StrategyFull},
	})
	dids := w.Net.DIDs()
	changes := []filter.Config{
		{Collections: []string{likes}},
		{Collections: []string{likes, posts}, Excludes: dids[:1]},
		{Collections: []string{follows}, Signals: []string{"com.example.absent.thing"}},
		{Collections: []string{posts}, Store: filter.StoreAll},
		{Mode: filter.ModeFull},
		{Collections: []string{posts}, Excludes: dids[1:2]},
	}
	w.refilter(filter.Config{Collections: []string{posts}})
	w.follow(store.ByOperator, dids[:4]...)
	for _, did := range dids[:3] {
		w.Settle(did)
	}
	for _, c := range changes {
		w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.Gate, Count: 1, Hook: func() { w.refilter(c) }})
		for _, did := range dids {
			if !w.Store.Filter().Excluded(did) {
				w.follow(store.ByOperator, did)
			}
		}
		w.Until("the change", func() bool { return slices.Equal(w.Store.Filter().Config().Collections, c.Collections) })
		if len(c.Excludes) > 0 {
			w.ends(func() bool { return !w.Known(c.Excludes[0]) })
		}
	}
	w.Clock.Advance(time.Hour)
	w.Run.Wake()
	w.converges(dids...)
}

// TestRefilterDeadHost: a dead host does not delay repositories of other hosts. Its own
// repositories are adapted to the filter when it is back; their stored records are swept meanwhile.
func TestRefilterDeadHost(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Seed: 8, Hosts: 2, Repos: 90, RecordsMedian: 5}})
	dids := w.Net.DIDs()
	w.refilter(filter.Config{Collections: []string{posts, likes}})
	w.Add(dids...)
	w.converges(dids...)
	if err := w.Net.Host(1).Down(); err != nil {
		t.Fatal(err)
	}
	w.refilter(filter.Config{Collections: []string{posts, follows}})
	var dead []string
	for _, did := range dids {
		if w.Net.Account(did).Host() == w.Net.Host(1) {
			dead = append(dead, did)
			continue
		}
		w.Until("the others", func() bool {
			w.Clock.Advance(100 * time.Millisecond)
			r := w.Row(did)
			return r.State == store.StateSynced && !r.Lacks && !r.Sweep && r.Filter == 2
		})
		w.fits(did)
	}
	for _, did := range dead {
		w.Until("the sweep", func() bool { r := w.Row(did); return !r.Sweep && r.Filter == 2 })
		for path := range w.told(did) {
			if !strings.HasPrefix(path, posts+"/") {
				t.Errorf("%s is still shown", path)
			}
		}
	}
	w.Until("the pass to be over", func() bool {
		w.Clock.Advance(10 * time.Second)
		_, running, err := w.Run.Refilter()
		return err == nil && !running
	})
	if err := w.Net.Host(1).Up(); err != nil {
		t.Fatal(err)
	}
	w.Until("all to be whole", func() bool {
		if w.Run.Syncing() == 0 { // otherwise transfers under way seem to take minutes
			w.Clock.Advance(time.Minute)
		}
		w.Run.Wake()
		return w.Store.Counts()["synced"] == int64(len(dids))
	})
	w.converges(dids...)
}

// TestForgettingEnded: when the runner stops while a large repository is forgotten in parts, the
// deletes written so far are published, though no later batch follows.
func TestForgettingEnded(t *testing.T) {
	t.Parallel()
	var w *world
	var armed atomic.Bool
	var base int64
	reached, ending := make(chan struct{}), make(chan struct{})
	step := func(name string) {
		if name == "applied" && armed.Load() && w.Store.Counts()["events"] > base && armed.CompareAndSwap(true, false) {
			close(reached)
			<-ending
		}
	}
	w = newWorld(t, worldOptions{net: simnet.Options{Seed: 6, Hosts: 1, Repos: 1, RecordsMedian: 3000, RecordsMax: 3000}, store: store.Options{Step: step}})
	did := w.Net.DIDs()[0]
	w.Add(did)
	w.Settle(did)
	base = w.Store.Counts()["events"]
	armed.Store(true)
	w.refilter(filter.Config{Excludes: []string{did}})
	<-reached
	w.End()
	close(ending)
	w.Stop()
	if events, head := w.Store.Counts()["events"], int64(storetest.Head(w.T, w.Store)); events <= base || head != events || !w.Known(did) {
		t.Errorf("%d events, of which %d are published; known %t", events, head, w.Known(did))
	}
}
