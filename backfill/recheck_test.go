package backfill_test

import (
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/backfill/backfilltest"
	"cistern/backfill/fetch"
	"cistern/backfill/pace"
	"cistern/filter"
	"cistern/ingest/repo"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"
)

const latestCommit = "com.atproto.sync.getLatestCommit"

// recheck requests a check whether a repository has changed at all.
func (w *world) recheck(did string) {
	w.T.Helper()
	w.Change(did, func(r *store.Repo) { r.Recheck = true })
	w.Add(did)
	w.Settle(did)
}

// TestRecheck: a repository whose commit has not changed is not transferred again, whatever else
// has changed.
func TestRecheck(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name    string
		change  func(w *world, a *simnet.Account)
		state   store.State
		status  store.Status
		fetches int
		events  []string // except record events
	}{
		{name: "nothing", state: store.StateSynced},
		{name: "a commit", change: func(w *world, a *simnet.Account) {
			if _, err := a.Mutate(4); err != nil {
				w.T.Fatal(err)
			}
		}, state: store.StateSynced, fetches: 1},
		{name: "the account", change: func(_ *world, a *simnet.Account) { a.SetStatus(simnet.Takendown) },
			state: store.StateGone, status: store.StatusTakendown, events: []string{"account takendown"}},
		{name: "the identity", change: func(w *world, a *simnet.Account) {
			w.Change(a.DID(), func(r *store.Repo) { r.Handle = "old.sim.test" })
		}, state: store.StateSynced, events: []string{"identity "}},
		{name: "a rev seen that the host knows", change: func(w *world, a *simnet.Account) {
			w.Change(a.DID(), func(r *store.Repo) { r.SeenRev = r.Rev })
		}, state: store.StateSynced},
		{name: "another commit of the same rev", change: func(w *world, a *simnet.Account) {
			w.Change(a.DID(), func(r *store.Repo) { r.Commit = append(slices.Clone(r.Commit), 0) })
		}, state: store.StateSynced, fetches: 1},
		{name: "the question is unknown", change: func(_ *world, a *simnet.Account) {
			a.Host().Inject(simnet.Fault{Kind: simnet.ServerError, Status: 501, DID: a.DID(), Endpoint: latestCommit})
		}, state: store.StateSynced, fetches: 1},
		{name: "a proxy that knows nothing", change: func(_ *world, a *simnet.Account) {
			a.Host().Inject(simnet.Fault{Kind: simnet.ServerError, Status: 404, DID: a.DID(), Endpoint: latestCommit})
		}, state: store.StateSynced, fetches: 1},
		{name: "no answer", change: func(_ *world, a *simnet.Account) {
			a.Host().Inject(simnet.Fault{Kind: simnet.Garbage, DID: a.DID(), Endpoint: latestCommit})
		}, state: store.StateSynced, fetches: 1},
		{name: "come later", change: func(_ *world, a *simnet.Account) {
			a.Host().Inject(simnet.Fault{Kind: simnet.RateLimited, DID: a.DID(), Endpoint: latestCommit, Count: 1})
		}, state: store.StateResync},
	}
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: len(cases), Repos: len(cases), RecordsMedian: 20}})
	dids := w.Net.DIDs()
	w.Add(dids...)
	w.Settle(dids...)
	for i, c := range cases {
		did := dids[i]
		a := w.Net.Account(did)
		head, fetches := storetest.Head(w.T, w.Store), len(a.Host().Log().Fetches[did])
		if c.change != nil {
			c.change(w, a)
		}
		w.recheck(did)
		r := w.Row(did)
		if n := len(a.Host().Log().Fetches[did]) - fetches; n != c.fetches || a.Host().Log().Requests[latestCommit] == 0 {
			t.Errorf("%s: %d transfers, want %d", c.name, n, c.fetches)
		}
		if r.State != c.state || r.Status != c.status || r.Recheck == (c.state == store.StateSynced) {
			t.Errorf("%s: %v, %v, recheck %v (%+v)", c.name, r.State, r.Status, r.Recheck, r.Retry)
		}
		if c.state == store.StateSynced {
			w.Equal(did)
			if r.SeenRev != "" {
				t.Errorf("%s: still to be seen: %s", c.name, r.SeenRev)
			}
		}
		others := slices.DeleteFunc(w.Events(did, head+1), func(e string) bool { return e[0] < 'a' })
		if len(c.events) > 0 && c.events[0] == "identity " {
			c.events[0] += a.Host().URL()
		}
		if !slices.Equal(others, c.events) {
			t.Errorf("%s: events %v, want %v", c.name, others, c.events)
		}
	}
}

// TestFutureDue: a synced repository that received a commit with a future rev is fetched when that
// time has come, if its host has a newer commit then.
func TestFutureDue(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 2}})
	dids := w.Net.DIDs()
	w.Add(dids...)
	w.Settle(dids...)
	if _, err := w.Net.Account(dids[1]).Mutate(3); err != nil {
		t.Fatal(err)
	}
	due := w.Clock.Now().Add(10 * time.Minute).Unix()
	for _, did := range dids {
		w.Change(did, func(r *store.Repo) { r.FutureDue, r.SeenRev = due, w.Net.Account(did).NextTID() })
	}
	w.Clock.Advance(10*time.Minute + time.Second)
	w.Run.Wake()
	for _, did := range dids {
		w.Until("it was looked at", func() bool { r := w.Row(did); return r.FutureDue == 0 && r.State == store.StateSynced })
		w.Equal(did)
	}
	log := w.Net.Host(0).Log()
	if n := log.Requests[latestCommit]; n != 2 || len(log.Fetches[dids[0]]) != 1 || len(log.Fetches[dids[1]]) != 2 {
		t.Errorf("%d questions, %d and %d transfers", n, len(log.Fetches[dids[0]]), len(log.Fetches[dids[1]]))
	}
}

// TestRecheckWithoutData: a repository without stored data is transferred in full.
func TestRecheckWithoutData(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}})
	did := w.Net.DIDs()[0]
	w.Know(did)
	w.recheck(did)
	w.Equal(did)
	if w.Row(did).Recheck || w.Net.Host(0).Log().Requests[latestCommit] != 0 {
		t.Error("asked what its latest commit is")
	}
}

// TestRecheckOfLag: an invented rev causes queries, but no transfers.
func TestRecheckOfLag(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}})
	did := w.Net.DIDs()[0]
	w.Add(did)
	w.Settle(did)
	w.Change(did, func(r *store.Repo) { r.SeenRev = w.Net.Account(did).NextTID() })
	w.recheck(did)
	for n := range 6 {
		w.Clock.Advance(time.Hour)
		w.Run.Wake()
		w.Until("an answer", func() bool {
			r := w.Row(did)
			return r.State == store.StateSynced || r.State == store.StateResync && int(r.Retry.Count) == n+2
		})
		w.Settle(did)
		if w.Row(did).State == store.StateSynced {
			break
		}
	}
	w.Equal(did)
	log := w.Net.Host(0).Log()
	if n := len(log.Fetches[did]); n != 1 || log.Requests[latestCommit] != 5 {
		t.Errorf("%d transfers, %d questions", n, log.Requests[latestCommit])
	}
	if r := w.Row(did); r.SeenRev != "" || r.Recheck {
		t.Errorf("%+v", r)
	}
}

// TestRevealedByRecheck: an account that returns unchanged is listed anew without a transfer.
func TestRevealedByRecheck(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}})
	did := w.Net.DIDs()[0]
	a := w.Net.Account(did)
	w.Add(did)
	w.Settle(did)
	a.SetStatus(simnet.Suspended)
	w.Add(did)
	w.Settle(did)
	a.SetStatus(simnet.Active)
	head, fetches := storetest.Head(w.T, w.Store), len(w.Net.Host(0).Log().Fetches[did])
	w.recheck(did)
	w.Equal(did)
	if len(w.Net.Host(0).Log().Fetches[did]) != fetches {
		t.Error("it was transferred")
	}
	got := w.Events(did, head+1)
	if len(got) == 0 || got[0] != "account active" {
		t.Fatalf("the first of %d events is not that the account is active", len(got))
	}
	if slices.Sort(got[1:]); !slices.Equal(got[1:], changes(nil, a.Truth().Records)) {
		t.Errorf("%d records listed of %d", len(got)-1, len(a.Truth().Records))
	}
}

// TestRevealUsedUp: an account that was hidden and shown so often that its records cannot be listed
// again is fetched as if for the first time, whether it has changed or not.
func TestRevealUsedUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 2}})
	for i, did := range w.Net.DIDs() {
		a := w.Net.Account(did)
		w.Add(did)
		w.Settle(did)
		a.SetStatus(simnet.Deactivated)
		w.Add(did)
		w.Settle(did)
		a.SetStatus(simnet.Active)
		if i == 1 {
			if _, err := a.Mutate(3); err != nil {
				t.Fatal(err)
			}
		}
		w.Change(did, func(r *store.Repo) { r.Listed = math.MaxUint32 })
		head := storetest.Head(w.T, w.Store)
		w.recheck(did)
		w.Equal(did)
		got := w.Events(did, head+1)
		if len(got) == 0 || got[0] != "account active" {
			t.Fatalf("the first of %d events is not that the account is active", len(got))
		}
		if slices.Sort(got[1:]); !slices.Equal(got[1:], changes(nil, a.Truth().Records)) {
			t.Errorf("%d records listed of %d", len(got)-1, len(a.Truth().Records))
		}
	}
}

// TestRevealCrash: an account returns with more changes than one batch holds. After any crash its
// records are listed once, and each change has one event after that.
func TestRevealCrash(t *testing.T) {
	storetest.WithoutRace(t) // many crash clones, one after the other
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	const seed = 11
	crashes := backfilltest.NewCrashes(seed, 1, 60)
	crashes.SetIdle(true)
	w := newWorld(t, worldOptions{
		net:   simnet.Options{Seed: seed, Hosts: 1, Repos: 1, OddKeys: 1, RecordsMedian: 100},
		store: store.Options{FS: crashes.FS, Step: crashes.Step, SmallBytes: 64 << 20},
	})
	did := w.Net.DIDs()[0]
	a := w.Net.Account(did)
	w.Add(did)
	w.Settle(did)
	a.SetStatus(simnet.Deactivated)
	w.Add(did)
	w.Settle(did)
	held, rev := w.Records(did), w.Row(did).Rev
	w.rewrite(a, rand.New(rand.NewPCG(seed, 1)), 0)
	a.SetStatus(simnet.Active)
	w.Change(did, func(r *store.Repo) { r.Recheck = true })
	crashes.SetIdle(false)
	w.Add(did)
	w.Settle(did)
	w.Stop()
	eachCrash(crashes, w, 8, func(w *world) {
		if r := w.Row(did); r.Rev == rev && !r.Torn && !maps.Equal(w.Records(did), held) {
			t.Errorf("%v, holds records of another rev than %s, and would be believed if its host had that", r.State, r.Rev)
		}
		w.start(backfill.Options{})
		w.Add(did)
		w.Settle(did)
		w.Equal(did)
		w.tells(did)
	})
}

// liar answers every getLatestCommit with the answer that it was last given.
type liar struct {
	next   http.RoundTripper
	answer atomic.Value // string
}

func (l *liar) RoundTrip(req *http.Request) (*http.Response, error) {
	answer, ok := l.answer.Load().(string)
	if !ok || !strings.HasSuffix(req.URL.Path, latestCommit) {
		return l.next.RoundTrip(req)
	}
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(answer)), Request: req}, nil
}

// TestRecheckOfTorn: an interrupted difference leaves no copy of the row's rev, so a host that
// reports that rev is not believed.
func TestRecheckOfTorn(t *testing.T) {
	t.Parallel()
	transport := &liar{next: &http.Transport{}}
	var applied atomic.Int64
	var w *world
	var did string
	var cut sync.WaitGroup
	var caught bool
	step := func(name string) {
		if name != "applied" || applied.Add(1) != 1 {
			return
		}
		// The first batch of the difference: its writer holds the lock of the DID, and the account
		// events come next, if no other caller gets the lock before them until it is over.
		cut.Go(func() {
			w.Change(did, func(r *store.Repo) {
				if caught = r.Torn; !caught {
					return
				}
				if rev := w.Net.Account(did).Truth().Rev; r.TornRev != rev {
					t.Errorf("torn at %q, want %s", r.TornRev, rev)
				}
				r.Attempt++
				r.Recheck = true // as when the account was away for a moment
			})
		})
		time.Sleep(20 * time.Millisecond)
	}
	applied.Store(1)
	w = newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1, RecordsMedian: 50}, store: store.Options{Step: step},
		runner: backfill.Options{Transport: transport}})
	did = w.Net.DIDs()[0]
	a := w.Net.Account(did)
	w.Add(did)
	w.Settle(did)
	rng := rand.New(rand.NewPCG(1, 1))
	for round := 0; !caught && round < 100; round++ {
		r := w.Row(did)
		transport.answer.Store(fmt.Sprintf(`{"cid":%q,"rev":%q}`, repo.HashCID(r.Commit), r.Rev))
		w.rewrite(a, rng, round)
		w.Gate.Shut(backfilltest.Pausing)
		w.Add(did)
		applied.Store(0)
		w.Gate.Open(backfilltest.Pausing.Name)
		w.Settle(did)
		cut.Wait()
	}
	if !caught {
		t.Fatal("nothing was cut short")
	}
	w.Equal(did)
	if r := w.Row(did); r.Torn || r.TornRev != "" || r.Recheck {
		t.Errorf("torn %v at %q, recheck %v", r.Torn, r.TornRev, r.Recheck)
	}
}

// TestTornIsNotFollowedByLess: events of an interrupted difference are in the log, so no copy of a
// lower rev is accepted after it, though that rev is newer than the one stored before.
func TestTornIsNotFollowedByLess(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1, RecordsMedian: 20}})
	did := w.Net.DIDs()[0]
	a := w.Net.Account(did)
	w.Add(did)
	w.Settle(did)
	for range 2 {
		if _, err := a.Mutate(3); err != nil {
			t.Fatal(err)
		}
	}
	torn, head := a.Truth().Rev, storetest.Head(w.T, w.Store)
	w.Change(did, func(r *store.Repo) { r.Torn, r.TornRev = true, torn })
	older := a.Host().Inject(simnet.Fault{Kind: simnet.StaleRev, DID: did, Count: 1})
	w.Add(did)
	w.Settle(did)
	r := w.Row(did)
	if older.Fired() != 1 || r.State != store.StateResync || !strings.Contains(r.Retry.Error, torn) || len(w.Events(did, head+1)) > 0 {
		t.Errorf("%v at %s after an older copy: %+v", r.State, r.Rev, r.Retry)
	}
	w.Add(did)
	w.Settle(did)
	w.Equal(did)
	if r := w.Row(did); r.Torn || r.TornRev != "" {
		t.Errorf("torn %v at %q", r.Torn, r.TornRev)
	}
}

// patiently waits for a copy, and advances the clock while the host must not be asked.
func (w *world) patiently(did string) {
	w.T.Helper()
	id := w.hostOf(w.Net.Account(did).Host())
	w.Until("the copy", func() bool {
		row, host := w.Row(did), w.Run.HostStanding(id)
		if row.State == store.StateResync || host.Opens.After(w.Clock.Now()) || host.ParkedUntil.After(w.Clock.Now()) {
			w.Clock.Advance(time.Second)
			w.Run.Wake()
		}
		return row.State == store.StateSynced && !w.Run.InFlight(did)
	})
}

// TestOneRequestAtATime: a host that accepts no second request for a minute receives only the
// request for the copy, without the queries that precede it elsewhere.
func TestOneRequestAtATime(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(w *world, a *simnet.Account){
		"a small one": func(w *world, a *simnet.Account) { w.Add(a.DID()) },
		"no proofs": func(w *world, a *simnet.Account) {
			a.Host().Inject(simnet.Fault{Kind: simnet.ServerError, Status: 500, Endpoint: proofs})
			w.Add(a.DID())
		},
		"one of the network": func(w *world, a *simnet.Account) {
			w.Filter(filter.Config{Collections: []string{"app.bsky.feed.repost"}, Signals: []string{"app.bsky.feed.*"}})
			w.follow(store.ByNetwork, a.DID())
		},
		"moved on": func(w *world, a *simnet.Account) {
			w.Add(a.DID())
			w.patiently(a.DID())
			if _, err := a.Mutate(4); err != nil {
				w.T.Fatal(err)
			}
			w.Change(a.DID(), func(r *store.Repo) { r.Recheck = true })
			w.Add(a.DID())
		},
		"a former key": func(w *world, a *simnet.Account) {
			a.MigrateKey(w.Net.Host(1))
			ident, err := w.Dir.Resolve(w.T.Context(), a.DID())
			if err != nil {
				w.T.Fatal(err)
			}
			w.Change(a.DID(), func(r *store.Repo) { // as a lookup leaves it whose host is busy
				r.State, r.Tracked, r.PDS, r.Key = store.StatePending, store.ByOperator, ident.PDS, ident.Key
				r.Pending = store.PendingKey{Host: w.hostOf(w.Net.Host(1)), Priority: store.PriorityOperator}
			})
			w.Run.Wake()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, _ := newSparseWorld(t, simnet.Options{Hosts: 2, Repos: 1, RecordsMedian: 20}, filter.Config{Collections: []string{"app.bsky.feed.repost"}},
				fetch.StrategyAuto, func(o *backfill.Options) { o.HostRules = pace.Rules{{Glob: "*", Override: pace.Override{PerHour: 60}}} })
			a := w.Net.Accounts()[0]
			prepare(w, a)
			w.patiently(a.DID())
			w.fits(a.DID())
		})
	}
}
