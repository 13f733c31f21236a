package backfill_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/backfill"
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
	w.t.Helper()
	if _, err := w.store.SetFilter(c); err != nil {
		w.t.Fatal(err)
	}
	w.run.Wake()
}

// converges waits until the state of all repositories fits the filter, and checks that.
func (w *world) converges(dids ...string) {
	w.t.Helper()
	w.ends(func() bool { return true })
	for _, did := range dids {
		w.fits(did)
	}
	storetest.Check(w.t, w.store)
}

// ends waits until the pass is over and no fetch is pending.
func (w *world) ends(and func() bool) {
	w.t.Helper()
	const patience = time.Minute // a round of the pass may begin up to half a minute after the last
	w.untilFor(patience, "the filter to be everybody's", func() bool {
		_, running, err := w.run.Refilter()
		if err != nil {
			w.t.Fatal(err)
		}
		return !running && w.store.Counts()["pending"] == 0 && w.run.Syncing() == 0 && and()
	})
}

// fits checks that the stored records and the log of a repository are as the filter in force
// requires: nothing if the filter does not follow it.
func (w *world) fits(did string) {
	w.t.Helper()
	f, truth := w.store.Filter(), w.net.Account(did).Truth()
	row, err := w.store.Repo(did)
	if errors.Is(err, store.ErrNotFound) {
		if told := w.told(did); len(told) != 0 {
			w.t.Errorf("%s is dropped, and %d of its records were told", did, len(told))
		}
		return
	}
	if err != nil {
		w.t.Fatal(err)
	}
	if row.State != store.StateSynced || row.Rev != truth.Rev || row.Sweep || row.Lacks || row.Torn {
		w.t.Errorf("%s is %v at %s of %s, filter %d of %d, sweep %v, lacks %v, torn %v (%+v)", did, row.State, row.Rev, truth.Rev,
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
	rows, err := w.store.Rows(row.Ordinal)
	if err != nil {
		w.t.Fatal(err)
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
		w.t.Fatal(err)
	}
	if !equalRecords(shown, heldShown) || !equalRecords(shelved, heldShelved) || !equalRecords(hidden, heldHidden) {
		w.t.Errorf("%s: %d records are shown, %d shelved, %d hidden; to be %d, %d, %d (filter %d of %d: %+v)", did, len(heldShown), len(heldShelved),
			len(heldHidden), len(shown), len(shelved), len(hidden), row.Filter, f.Version, f.Config())
	}
	if told := w.told(did); !equalRecords(told, shown) {
		w.t.Errorf("%s: the log leads to %d records, not to %d", did, len(told), len(shown))
	}
}

// told returns the state that the log of a DID leads to. Each event must change something, except
// deletions of records created before the repository was dropped.
func (w *world) told(did string) map[string]repo.CID {
	w.t.Helper()
	held, rev := map[string]repo.CID{}, ""
	for cursor := w.store.Tail(); cursor <= w.store.Head(); {
		next, err := w.store.ReadLog(w.t.Context(), cursor, 10_000, func(e *store.Event) error {
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
			w.t.Errorf("%s: %v", did, err)
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
			dids := w.net.DIDs()
			w.refilter(c.from)
			w.add(dids...)
			w.converges(dids...)
			w.net.Host(0).ResetLog()
			w.net.Host(1).ResetLog()
			w.refilter(c.to)
			w.converges(dids...)
			asked := len(w.net.Host(0).Log().Requests) + len(w.net.Host(1).Log().Requests)
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
			dids := w.net.DIDs()
			w.add(dids[:10]...)
			w.signal(dids[10:]...)
			for range 25 {
				w.refilter(randomFilter(rng, dids))
				switch rng.IntN(5) {
				case 0:
					w.mutate(rng, dids)
				case 1:
					w.stop()
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
			w.clock.advance(2 * time.Hour)
			w.run.Wake()
			w.until("all retries", func() bool { return w.store.Counts()["resync"] == 0 })
			w.converges(dids...)
		})
	}
}

// signal follows unknown repositories as a record does.
func (w *world) signal(dids ...string) {
	w.t.Helper()
	f := w.store.Filter()
	for _, did := range dids {
		if !f.Excluded(did) {
			w.change(did, func(r *store.Repo) {
				if !r.Known() {
					r.State, r.Tracked = store.StatePending, store.BySignal
					r.Pending = store.PendingKey{Priority: store.PriorityDiscovery}
				}
			})
		}
	}
	w.run.Wake()
}

// mutate changes a repository and has it fetched.
func (w *world) mutate(rng *rand.Rand, dids []string) {
	w.t.Helper()
	did := dids[rng.IntN(len(dids)-1)]
	if _, err := w.net.Account(did).Mutate(1 + rng.IntN(20)); err != nil {
		w.t.Fatal(err)
	}
	w.change(did, func(r *store.Repo) {
		if !r.Known() {
			r.Tracked = store.BySignal
		}
		r.State, r.Recheck = store.StatePending, true
		r.Attempt++
		r.Pending = store.PendingKey{Host: r.Pending.Host, Priority: store.PriorityRetry}
	})
	w.run.Wake()
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
	var log safeBuffer
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1, RecordsMedian: 2}, runner: backfill.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}})
	over := func() bool { _, running, err := w.run.Refilter(); return err == nil && !running }
	w.filter(filter.Config{Collections: []string{"app.bsky.feed.post"}})
	w.until("the pass to end", over)
	if strings.Contains(log.String(), "refiltering") {
		t.Errorf("log %s", log.String())
	}
	w.add(w.net.DIDs()[0])
	w.settle(w.net.DIDs()[0])
	w.filter(filter.Config{})
	w.until("the pass to be announced", func() bool {
		return strings.Contains(log.String(), "refiltering begins") && strings.Contains(log.String(), "refiltering ended")
	})
}

// safeBuffer is a buffer for several writers.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // mu guards
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
