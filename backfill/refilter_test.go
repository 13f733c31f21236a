package backfill_test

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/backfill/backfilltest"
	"cistern/backfill/fetch"
	"cistern/filter"
	"cistern/ingest/repo"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"
)

const (
	posts   = "app.bsky.feed.post"
	likes   = "app.bsky.feed.like"
	feeds   = "app.bsky.feed.*"
	follows = "app.bsky.graph.follow"
	profile = "app.bsky.actor.profile"
	notes   = "com.example.sim.note"
)

// refilter puts a filter in force.
func (w *world) refilter(c filter.Config) {
	w.T.Helper()
	if _, err := w.Store.SetFilter(c); err != nil {
		w.T.Fatal(err)
	}
	w.Run.Wake()
}

// converges waits until the state of all repositories fits the filter, and checks that.
func (w *world) converges(dids ...string) {
	w.T.Helper()
	w.ends(func() bool { return true })
	for _, did := range dids {
		w.fits(did)
	}
	storetest.Check(w.T, w.Store)
}

// ends waits until the pass is over and no fetch is pending.
func (w *world) ends(and func() bool) {
	w.T.Helper()
	const patience = time.Minute // a round of the pass may begin up to half a minute after the last
	w.UntilFor(patience, "the filter to be everybody's", func() bool {
		_, running, err := w.Run.Refilter()
		if err != nil {
			w.T.Fatal(err)
		}
		return !running && w.Store.Counts()["pending"] == 0 && w.Run.Syncing() == 0 && and()
	})
}

// fits checks that the stored records and the log of a repository are as the filter in force
// requires: nothing if the filter does not follow it.
func (w *world) fits(did string) {
	w.T.Helper()
	f, truth := w.Store.Filter(), w.Net.Account(did).Truth()
	row, err := w.Store.Repo(did)
	if errors.Is(err, store.ErrNotFound) {
		if told := w.told(did); len(told) != 0 {
			w.T.Errorf("%s is dropped, and %d of its records were told", did, len(told))
		}
		return
	}
	if err != nil {
		w.T.Fatal(err)
	}
	if row.State != store.StateSynced || row.Rev != truth.Rev || row.Sweep || row.Lacks || row.Torn {
		w.T.Errorf("%s is %v at %s of %s, filter %d of %d, sweep %v, lacks %v, torn %v (%+v)", did, row.State, row.Rev, truth.Rev,
			row.Filter, f.Version, row.Sweep, row.Lacks, row.Torn, row.Retry)
	}
	shown, shelved, hidden := map[string]repo.CID{}, map[string]repo.CID{}, map[string]repo.CID{}
	for path, cid := range truth.Records {
		collection, _, valid := repo.SplitPath([]byte(path))
		all := f.WantsAll() || f.StoresAll()
		switch {
		case valid && f.Wants(collection):
			shown[path] = cid
		case valid && all:
			shelved[path] = cid
		case all:
			hidden[path] = cid
		}
	}
	rows, err := w.Store.Rows(row.Ordinal)
	if err != nil {
		w.T.Fatal(err)
	}
	heldShown, heldShelved, heldHidden := map[string]repo.CID{}, map[string]repo.CID{}, map[string]repo.CID{}
	for rows.Next() {
		switch r := rows.Row(); {
		case r.Hidden:
			heldHidden[string(r.Path)] = r.CID
		case r.Shelved:
			heldShelved[string(r.Path)] = r.CID
		default:
			heldShown[string(r.Path)] = r.CID
		}
	}
	if err := rows.Close(); err != nil {
		w.T.Fatal(err)
	}
	if !maps.Equal(shown, heldShown) || !maps.Equal(shelved, heldShelved) || !maps.Equal(hidden, heldHidden) {
		w.T.Errorf("%s: %d records are shown, %d shelved, %d hidden; to be %d, %d, %d (filter %d of %d: %+v)", did, len(heldShown), len(heldShelved),
			len(heldHidden), len(shown), len(shelved), len(hidden), row.Filter, f.Version, f.Config())
	}
	if told := w.told(did); !maps.Equal(told, shown) {
		w.T.Errorf("%s: the log leads to %d records, not to %d", did, len(told), len(shown))
	}
}

// told returns the state that the log of a DID leads to. Each event must change something, except
// deletions of records created before the repository was dropped.
func (w *world) told(did string) map[string]repo.CID {
	w.T.Helper()
	w.Publish(did)
	held, rev := map[string]repo.CID{}, ""
	for cursor := w.Store.Tail(); cursor <= w.Store.Head(); {
		next, err := w.Store.ReadLog(w.T.Context(), cursor, 10_000, func(e *store.Event) error {
			if e.DID != did {
				return nil
			}
			if e.Kind == store.KindAccount && e.Status.Hidden() {
				clear(held) // a reader may drop them before they are listed anew
				rev = ""
			}
			if e.Kind != store.KindRecord {
				return nil
			}
			path := fmt.Sprintf("%s/%s", e.Collection, e.Rkey)
			old, known := held[path]
			switch {
			case e.Rev < rev && len(held) > 0:
				return fmt.Errorf("rev %s after %s", e.Rev, rev)
			case e.Action == store.Delete && !known: // of a repository that was dropped later
				return nil
			case e.Action == store.Create && known, e.Action != store.Create && !known, old == e.CID:
				return fmt.Errorf("%v of %s, known %v", e.Action, path, known)
			}
			rev, held[path] = e.Rev, e.CID
			if e.Action == store.Delete {
				delete(held, path)
			}
			return nil
		})
		if err != nil {
			w.T.Errorf("%s: %v", did, err)
			return held
		}
		cursor = next
	}
	return held
}

// TestRefilter takes repositories through one filter after the other.
func TestRefilter(t *testing.T) {
	t.Parallel()
	wanted := func(collections ...string) filter.Config { return filter.Config{Collections: collections} }
	all := func(collections ...string) filter.Config {
		return filter.Config{Collections: collections, Store: filter.StoreAll}
	}
	for _, c := range []struct {
		name     string
		from, to filter.Config
		fetches  bool // whether it needs requests
	}{
		{"widen", wanted(posts), wanted(posts, follows), true},
		{"widen to a prefix", wanted(posts), wanted(feeds), true},
		{"widen to all", wanted(posts), wanted(), true},
		{"narrow", wanted(feeds, follows), wanted(likes), false},
		{"narrow from all", wanted(), wanted(likes), false},
		{"both", wanted(posts, profile), wanted(posts, likes), true},
		{"something else", wanted(posts), wanted(likes), true},
		{"show more of all", all(posts), all(posts, follows), false},
		{"show less of all", all(), all(notes), false},
		{"show something else of all", all(posts), all(likes), false},
		{"store all", wanted(posts), all(posts), true},
		{"store all of all", wanted(), all(), false},
		{"store all and show less", wanted(), all(posts), false},
		{"store what is wanted", all(posts), wanted(posts), false},
		{"store what is wanted, all", all(posts), wanted(), false},
		{"store what is wanted, something else", all(posts), wanted(feeds), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{net: simnet.Options{Seed: 3, Hosts: 2, Repos: 8, OddKeys: 2, Empty: 1}})
			dids := w.Net.DIDs()
			w.refilter(c.from)
			w.Add(dids...)
			w.converges(dids...)
			w.Net.Host(0).ResetLog()
			w.Net.Host(1).ResetLog()
			w.refilter(c.to)
			w.converges(dids...)
			asked := len(w.Net.Host(0).Log().Requests) + len(w.Net.Host(1).Log().Requests)
			if (asked > 0) != c.fetches {
				t.Errorf("hosts were asked %d kinds of questions", asked)
			}
		})
	}
}

// TestRefilterRandom changes filters and repositories at random, mostly before the previous change
// is processed, and stops and starts the runner.
func TestRefilterRandom(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, 7))
			w := newWorld(t, worldOptions{net: simnet.Options{Seed: seed + 10, Hosts: 3, Repos: 14, OddKeys: 2, RecordsMax: 900, Empty: 1}})
			dids := w.Net.DIDs()
			w.Add(dids[:10]...)
			w.signal(dids[10:]...)
			for range 25 {
				w.refilter(randomFilter(rng, dids))
				switch rng.IntN(5) {
				case 0:
					w.mutate(rng, dids)
				case 1:
					w.Stop()
					w.start(backfill.Options{Strategy: fetch.Strategy(rng.IntN(3))})
				case 2:
					w.signal(dids[10+rng.IntN(4)])
				case 3:
					w.ends(func() bool { return true })
				}
			}
			w.refilter(filter.Config{Collections: []string{posts, follows}, Signals: []string{likes}})
			w.signal(dids...)
			w.ends(func() bool { return true })
			w.Clock.Advance(2 * time.Hour)
			w.Run.Wake()
			w.Until("all retries", func() bool { return w.Store.Counts()["resync"] == 0 })
			w.converges(dids...)
		})
	}
}

// signal follows unknown repositories as a record does.
func (w *world) signal(dids ...string) {
	w.T.Helper()
	f := w.Store.Filter()
	for _, did := range dids {
		if !f.Excluded(did) {
			w.Change(did, func(r *store.Repo) {
				if !r.Known() {
					r.State, r.Tracked = store.StatePending, store.BySignal
					r.Pending = store.PendingKey{Priority: store.PriorityDiscovery}
				}
			})
		}
	}
	w.Run.Wake()
}

// mutate changes a repository and has it fetched.
func (w *world) mutate(rng *rand.Rand, dids []string) {
	w.T.Helper()
	did := dids[rng.IntN(len(dids)-1)]
	if _, err := w.Net.Account(did).Mutate(1 + rng.IntN(20)); err != nil {
		w.T.Fatal(err)
	}
	w.Change(did, func(r *store.Repo) {
		if !r.Known() {
			r.Tracked = store.BySignal
		}
		r.State, r.Recheck = store.StatePending, true
		r.Attempt++
		r.Pending = store.PendingKey{Host: r.Pending.Host, Priority: store.PriorityRetry}
	})
	w.Run.Wake()
}

func randomFilter(rng *rand.Rand, dids []string) filter.Config {
	some := func(of ...string) (out []string) {
		for _, s := range of {
			if rng.IntN(3) == 0 {
				out = append(out, s)
			}
		}
		return out
	}
	c := filter.Config{
		Collections: some(posts, likes, follows, profile, notes, feeds),
		Signals:     some(notes, likes, profile, "com.example.absent.thing"),
	}
	if rng.IntN(3) == 0 {
		c.Store = filter.StoreAll
	}
	if rng.IntN(3) == 0 {
		c.Mode = filter.ModeFull
	}
	if rng.IntN(3) == 0 {
		c.Excludes = []string{dids[rng.IntN(len(dids))]}
	}
	return c
}

// TestFirstFilterIsNoNews: the pass after the first filter of a store without repositories is not
// logged; the pass after a later filter is.
func TestFirstFilterIsNoNews(t *testing.T) {
	t.Parallel()
	var log backfilltest.Buffer
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1, RecordsMedian: 2}, runner: backfill.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}})
	over := func() bool { _, running, err := w.Run.Refilter(); return err == nil && !running }
	w.Filter(filter.Config{Collections: []string{"app.bsky.feed.post"}})
	w.Until("the pass to end", over)
	if strings.Contains(log.String(), "refiltering") {
		t.Errorf("log %s", log.String())
	}
	w.Add(w.Net.DIDs()[0])
	w.Settle(w.Net.DIDs()[0])
	w.Filter(filter.Config{})
	w.Until("the pass to be announced", func() bool {
		return strings.Contains(log.String(), "refiltering begins") && strings.Contains(log.String(), "refiltering ended")
	})
}
