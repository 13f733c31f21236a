package backfill_test

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
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

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	proofs = "com.atproto.sync.getRecord"
	parts  = "com.atproto.sync.getBlocks"
)

// ways are how copies were fetched: full, sparse, fallback.
func ways(t testing.TB, reg *prometheus.Registry) (n [3]float64) {
	for i, way := range []string{"full", "sparse", "fallback"} {
		n[i] = backfilltest.Counted(t, reg, "fetches_total", way)
	}
	return n
}

func newSparseWorld(t testing.TB, net simnet.Options, f filter.Config, strategy fetch.Strategy, tune ...func(*backfill.Options)) (*world, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	o := backfill.Options{Strategy: strategy, Registerer: reg, RetryBase: time.Millisecond, RetryMax: time.Second}
	for _, f := range tune {
		f(&o)
	}
	w := newWorld(t, worldOptions{net: net, runner: o})
	w.refilter(f)
	w.ends(func() bool { return true })
	return w, reg
}

// image is the stored state and the log of a repository.
type image struct {
	Rev      string
	Data     repo.CID
	Commit   string
	State    store.State
	Filter   uint32
	Records  int64
	Shelved  int64
	Verified store.Verified
	Rows     map[string]repo.CID
	Events   []string
}

func (w *world) image(did string) image {
	r := w.Row(did)
	return image{r.Rev, r.Data, string(r.Commit), r.State, r.Filter, r.Records, r.Shelved, r.Verified, w.Records(did), w.Events(did, 0)}
}

// neighbours are collections with adjacent keys, some of them prefixes of others.
var neighbours = []string{"app.bsky.feed.post", "app.bsky.feed.postgate", "app.bsky.feed.posts.x", "app.bsky.feed.pos", "app.bsky.feed.like",
	"app.bsky.feedx.y", "app.bsky.graph.follow", "com.example.sim.note", "org.example.one", "zz.example.last"}

func sparseFilter(r *rand.Rand) filter.Config {
	all := append([]string{"app.bsky.feed.*", "app.bsky.*", "app.*", "app.bsky.feed.posts.*", "app.bsky.actor.profile", "com.example.*", "org.example.nothing",
		"app.bsky.feed.repost", "aa.example.first"}, neighbours...)
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	c := filter.Config{Collections: all[:1+r.IntN(4)]}
	if r.IntN(6) == 0 {
		c.Store = filter.StoreAll
	}
	return c
}

// write has each account write among the neighbours.
func (w *world) write(r *rand.Rand) {
	w.T.Helper()
	for _, a := range w.Net.Accounts() {
		writes := map[string]simnet.Write{}
		for range 1 + r.IntN(40) {
			path := fmt.Sprintf("%s/%x", neighbours[r.IntN(len(neighbours))], r.IntN(30))
			switch gone := a.Record(path) != nil && r.IntN(3) == 0; {
			case gone:
				writes[path] = simnet.Write{Path: path}
			default:
				writes[path] = simnet.Write{Path: path, Record: simnet.EncodeRecord(simnet.Post(fmt.Sprint(r.IntN(5))))}
			}
		}
		var commit []simnet.Write
		for _, path := range slices.Sorted(maps.Keys(writes)) {
			commit = append(commit, writes[path])
		}
		if _, err := a.Commit(commit...); err != nil {
			w.T.Fatal(err)
		}
	}
}

// TestSparseIsFull: with the same filters, mutations and refetches, partial copies have the same
// records and events as whole copies.
func TestSparseIsFull(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			sparseIsFull(t, seed)
		})
	}
}

func sparseIsFull(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 11))
	filters := []filter.Config{sparseFilter(r), sparseFilter(r), sparseFilter(r)}
	filters[seed%3].Store = "" // some is fetched in parts
	all := slices.ContainsFunc(filters, func(c filter.Config) bool { return c.Store == filter.StoreAll })
	net := simnet.Options{Seed: seed + 1, Hosts: 2, Repos: 8, RecordsMedian: 150, OddKeys: 2, Empty: 1, Gzip: seed%2 == 0, Preorder: seed%3 == 0}
	var images [3][]map[string]image
	for i, strategy := range []fetch.Strategy{fetch.StrategyFull, fetch.StrategySparse, fetch.StrategyAuto} {
		w, reg := newSparseWorld(t, net, filters[0], strategy)
		r := rand.New(rand.NewPCG(seed, 12))
		for round, f := range filters {
			if round > 0 {
				w.refilter(f)
				w.ends(func() bool { return true })
				for _, a := range w.Net.Accounts() {
					if _, err := a.Mutate(1 + round*3); err != nil {
						t.Fatal(err)
					}
				}
				w.write(r)
			}
			dids := w.Net.DIDs()
			w.Add(dids...)
			w.Settle(dids...)
			w.ends(func() bool { return true })
			m := map[string]image{}
			for _, did := range dids {
				m[did] = w.image(did)
				w.fits(did)
			}
			images[i] = append(images[i], m)
		}
		w.Gauges()
		if n := ways(t, reg); n[2] != 0 || (n[1] > 0) != (strategy != fetch.StrategyFull) || strategy == fetch.StrategySparse && n[0] != 0 && !all {
			t.Errorf("strategy %d fetched full, sparse, fallback: %v", strategy, n)
		}
	}
	for i := range images[1:] {
		if d := cmp.Diff(images[0], images[i+1]); d != "" {
			t.Errorf("filters %v: full and strategy %d differ: %.2000s", filters, i+1, d)
		}
	}
}

// TestSparseFaults: whatever is wrong with the parts, the copy is right in the end, fetched as a
// whole if necessary.
func TestSparseFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	const fallback, sparse, full = "fallback", "sparse", "full"
	fault := func(kind simnet.FaultKind, endpoint string) simnet.Fault {
		return simnet.Fault{Kind: kind, Endpoint: endpoint}
	}
	status := func(code int, endpoint string) simnet.Fault {
		return simnet.Fault{Kind: simnet.ServerError, Status: code, Endpoint: endpoint}
	}
	// of others' blocks, under their true CIDs
	foreign := simnet.Fault{Kind: simnet.Mutated, Endpoint: parts, Mutate: func(car []byte) []byte {
		header := append([]byte{}, car[:sections(car)[1]]...)
		other := []byte{0xa0}
		id := repo.HashCID(other)
		return append(id.AppendBytes(append(header, byte(repo.CIDBytes+1))), other...)
	}}
	many := simnet.Fault{Kind: simnet.Mutated, Endpoint: parts, Mutate: func(car []byte) []byte {
		header := append([]byte{}, car[:sections(car)[1]]...)
		for i := range 1000 {
			junk := []byte{0x19, byte(1 + i>>8), byte(i)}
			id := repo.HashCID(junk)
			header = append(id.AppendBytes(append(header, byte(repo.CIDBytes+3))), junk...)
		}
		return header
	}}
	once := func(f simnet.Fault) simnet.Fault { f.Count = 1; return f }
	tests := map[string]struct {
		fault simnet.Fault
		way   string
	}{
		"no proofs":                 {status(501, proofs), fallback},
		"no such path":              {status(404, proofs), fallback},
		"proofs fail":               {status(500, proofs), fallback},
		"no blocks":                 {status(501, parts), fallback},
		"bad request":               {status(400, parts), fallback},
		"host is away for a moment": {once(status(503, parts)), sparse},
		"host is away":              {status(503, parts), full},
		"limited":                   {once(simnet.Fault{Kind: simnet.RateLimited, Endpoint: parts, RetryAfter: time.Second}), full},
		"proof of another":          {fault(simnet.WrongDID, proofs), fallback},
		"proof of a stranger":       {fault(simnet.BadSignature, proofs), full},
		"proof of the future":       {fault(simnet.FutureRev, proofs), fallback},
		"garbage for a proof":       {fault(simnet.Garbage, proofs), fallback},
		"garbage for blocks":        {fault(simnet.Garbage, parts), fallback},
		"forged block":              {fault(simnet.WrongHash, parts), fallback},
		"record left out":           {fault(simnet.MissingRecord, parts), fallback},
		"node left out":             {fault(simnet.MissingNode, parts), fallback},
		// The missing node is requested.
		"node left out of the proof": {fault(simnet.MissingNode, proofs), sparse},
		"cut off":                    {fault(simnet.Truncated, parts), full},
		"broken off once":            {once(fault(simnet.Reset, parts)), sparse},
		"blocks of others":           {foreign, fallback},
		"blocks without end":         {many, fallback},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, reg := newSparseWorld(t, simnet.Options{Seed: 3, Hosts: 1, Repos: 2, RecordsMedian: 700}, filter.Config{Collections: []string{"app.bsky.feed.repost"}}, fetch.StrategySparse)
			did := w.Net.DIDs()[0]
			in := w.Net.Host(0).Inject(test.fault)
			w.Add(did)
			w.Until("the copy", func() bool {
				w.Clock.Advance(time.Minute)
				w.Run.Wake()
				return w.Row(did).State == store.StateSynced && !w.Run.InFlight(did)
			})
			w.fits(did)
			w.Gauges()
			if n := backfilltest.Counted(t, reg, "fetches_total", test.way); n != 1 || in.Fired() == 0 || in.Fired() > 10 {
				t.Errorf("%s %v times; full, sparse, fallback: %v; fired %d", test.way, n, ways(t, reg), in.Fired())
			}
		})
	}
}

// TestSparseMovesOn: a repository that changes while its parts are fetched is copied at one of its
// commits.
func TestSparseMovesOn(t *testing.T) {
	t.Parallel()
	for endpoint, moves := range map[string]int{proofs: 1, parts: 6, proofs + " ever again": 0} {
		t.Run(endpoint, func(t *testing.T) {
			t.Parallel()
			w, reg := newSparseWorld(t, simnet.Options{Seed: 4, Hosts: 1, Repos: 1, RecordsMedian: 900}, filter.Config{Collections: []string{"app.bsky.feed.*"}}, fetch.StrategySparse)
			a := w.Net.Accounts()[0]
			w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.Gate, Endpoint: strings.Fields(endpoint)[0], Count: moves, Hook: func() {
				if _, err := a.Mutate(30); err != nil {
					t.Error(err)
				}
			}})
			w.Add(a.DID())
			w.Settle(a.DID())
			w.fits(a.DID())
			want := [3]float64{0, 1, 0}
			if moves == 0 {
				want = [3]float64{0, 0, 1}
			}
			if n := ways(t, reg); n != want {
				t.Errorf("fetched full, sparse, fallback: %v", n)
			}
		})
	}
}

// blockNotFound makes a host answer a bad request for blocks with the error of the lexicon and a
// 404.
type blockNotFound struct{ http.RoundTripper }

func (b blockNotFound) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(req)
	if err == nil && strings.HasSuffix(req.URL.Path, parts) && resp.StatusCode == http.StatusBadRequest {
		_ = resp.Body.Close()
		resp.StatusCode, resp.Body = http.StatusNotFound, io.NopCloser(strings.NewReader(`{"error":"BlockNotFound"}`))
	}
	return resp, err
}

// TestSparseBlockNotFound: a host that answers with another error for a missing block is asked for
// parts as before.
func TestSparseBlockNotFound(t *testing.T) {
	t.Parallel()
	w, reg := newSparseWorld(t, simnet.Options{Seed: 4, Hosts: 1, Repos: 2, RecordsMedian: 900}, filter.Config{Collections: []string{"app.bsky.feed.*"}}, fetch.StrategySparse,
		func(o *backfill.Options) { o.Transport = blockNotFound{&http.Transport{}} })
	a := w.Net.Accounts()[0]
	gone := w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.Gate, Endpoint: parts, Count: 2, Hook: func() {
		if _, err := a.Mutate(30); err != nil {
			t.Error(err)
		}
	}})
	for i, a := range w.Net.Accounts() {
		w.Add(a.DID())
		w.Settle(a.DID())
		w.fits(a.DID())
		if n, want := ways(t, reg), [3]float64{0, float64(i + 1), 0}; n != want || gone.Fired() != 2 {
			t.Errorf("fetched full, sparse, fallback: %v, want %v", n, want)
		}
	}
}

// TestSparseSlow: parts that take too long are no failure, because the whole may be faster.
func TestSparseSlow(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]simnet.Fault{
		"one is never answered": {Kind: simnet.Hang},
		"there are many":        {Kind: simnet.Latency, Delay: 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, reg := newSparseWorld(t, simnet.Options{Seed: 4, Hosts: 1, Repos: 1, RecordsMedian: 900}, filter.Config{Collections: []string{"app.bsky.feed.*"}},
				fetch.StrategySparse, func(o *backfill.Options) { o.FetchTimeout = 3 * time.Second })
			fault.Endpoint = parts
			w.Net.Host(0).Inject(fault)
			did := w.Net.DIDs()[0]
			w.Add(did)
			w.Settle(did)
			w.fits(did)
			if n := ways(t, reg); n != [3]float64{0, 0, 1} {
				t.Errorf("fetched full, sparse, fallback: %v", n)
			}
			if host := w.Run.HostStanding(w.hostOf(w.Net.Host(0))); host.Error != "" || host.State() != "ok" {
				t.Errorf("the host stands as %+v", host)
			}
		})
	}
}

// TestSparseShared: a part is too large for the bytes received if the whole is.
func TestSparseShared(t *testing.T) {
	t.Parallel()
	var kinds []string
	for _, strategy := range []fetch.Strategy{fetch.StrategyFull, fetch.StrategySparse} {
		w, _ := newSparseWorld(t, simnet.Options{Hosts: 1, Repos: 1, Empty: 1}, filter.Config{Collections: []string{"app.bsky.feed.post"}}, strategy)
		a := w.Net.Accounts()[0]
		big := simnet.EncodeRecord(simnet.Post(strings.Repeat("x", 900_000)))
		var writes []simnet.Write
		for i := range 60 {
			writes = append(writes, simnet.Write{Path: fmt.Sprintf("app.bsky.feed.post/%d", i), Record: big})
		}
		if _, err := a.Commit(writes...); err != nil {
			t.Fatal(err)
		}
		w.Add(a.DID())
		w.Settle(a.DID())
		kinds = append(kinds, w.Row(a.DID()).Retry.Error) // soon the row is pending again
	}
	if kinds[0] != kinds[1] || !strings.Contains(kinds[0], "shared blocks") {
		t.Errorf("it ends whole and in parts as %q", kinds)
	}
}

// TestSparseSignal: a repository found by a signal is kept for a record that the filter does not
// want, and forgotten without one.
func TestSparseSignal(t *testing.T) {
	t.Parallel()
	for _, strategy := range []fetch.Strategy{fetch.StrategyFull, fetch.StrategySparse} {
		for signal, kept := range map[string]bool{"app.bsky.feed.like": true, "org.example.nothing": false} {
			w, _ := newSparseWorld(t, simnet.Options{Seed: 5, Hosts: 1, Repos: 1, RecordsMedian: 500},
				filter.Config{Signals: []string{signal}, Collections: []string{"app.bsky.feed.repost"}}, strategy)
			did := w.Net.DIDs()[0]
			w.Change(did, func(r *store.Repo) {
				r.State, r.Tracked, r.Attempt = store.StatePending, store.BySignal, 1
			})
			w.Run.Wake()
			w.Until("the verdict", func() bool {
				r, err := w.Store.Repo(did)
				return !w.Run.InFlight(did) && (err != nil || r.State != store.StatePending)
			})
			if _, err := w.Store.Repo(did); (err == nil) != kept {
				t.Errorf("strategy %d, signal %s: %v", strategy, signal, err)
			}
			if kept {
				w.fits(did)
			}
			w.Stop()
		}
	}
}

// TestSparseNotWorthIt: a repository that is small, mostly wanted or too large for memory is
// fetched whole, and a host that sends no parts is not asked for them again.
func TestSparseNotWorthIt(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	reposts, most := []string{"app.bsky.feed.repost"}, []string{"app.bsky.*", "com.example.*"}
	little := func(o *backfill.Options) { o.RepoMemoryBytes = 256 << 10 }
	none := simnet.Fault{Kind: simnet.ServerError, Status: 501, Endpoint: proofs}
	tests := map[string]struct {
		records  int
		wanted   []string
		strategy fetch.Strategy
		tune     func(*backfill.Options)
		fault    *simnet.Fault
		want     [3]float64 // full, sparse, fallback
		proofs   int
	}{
		"small":          {60, most, fetch.StrategyAuto, nil, nil, [3]float64{3, 0, 0}, 3},
		"small, by will": {60, most, fetch.StrategySparse, nil, nil, [3]float64{0, 3, 0}, 3},
		"most wanted":    {3000, most, fetch.StrategyAuto, nil, nil, [3]float64{3, 0, 0}, 3},
		"little memory":  {3000, most, fetch.StrategySparse, little, nil, [3]float64{3, 0, 0}, 3},
		"never":          {3000, reposts, fetch.StrategyFull, nil, nil, [3]float64{3, 0, 0}, 0},
		"all wanted":     {300, nil, fetch.StrategySparse, nil, nil, [3]float64{3, 0, 0}, 0},
		"no parts":       {300, reposts, fetch.StrategySparse, nil, &none, [3]float64{2, 0, 1}, 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if test.tune == nil {
				test.tune = func(*backfill.Options) {}
			}
			net := simnet.Options{Seed: 6, Hosts: 1, Repos: 10, RecordsMedian: test.records, RecordsMax: test.records + 1}
			w, reg := newSparseWorld(t, net, filter.Config{Collections: test.wanted}, test.strategy, test.tune)
			if test.fault != nil {
				w.Net.Host(0).Inject(*test.fault)
			}
			done := 0
			for _, a := range w.Net.Accounts() {
				if len(a.Paths()) < test.records || done == 3 {
					continue // sizes are random up to the limit
				}
				done++
				w.Add(a.DID())
				w.Settle(a.DID())
				w.fits(a.DID())
			}
			if n := ways(t, reg); n != test.want {
				t.Errorf("fetched full, sparse, fallback: %v, want %v", n, test.want)
			}
			if n := w.Net.Host(0).Log().Requests[proofs]; n != test.proofs {
				t.Errorf("%d proofs were asked for, want %d", n, test.proofs)
			}
			w.Gauges()
		})
	}
}

// TestSparseCutShort: if a host stops accepting requests in the middle of a part, that repository
// is fetched whole next, and other repositories of the host in parts. Only a host that does so
// repeatedly is no longer asked for parts.
func TestSparseCutShort(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	tests := map[string]struct {
		rules  pace.Rules
		fault  func(w *world) simnet.Fault
		want   [3]float64 // full, sparse, fallback
		proofs int
	}{
		"its host was parked": {nil, func(w *world) simnet.Fault {
			return simnet.Fault{Kind: simnet.Gate, Endpoint: parts, Count: 1, Hook: func() {
				if err := backfill.Refuse(w.Run, w.hostOf(w.Net.Host(0)), time.Minute); err != nil {
					w.T.Error(err)
				}
			}}
		}, [3]float64{1, 2, 0}, 3},
		"it was limited": {nil, func(*world) simnet.Fault {
			return simnet.Fault{Kind: simnet.RateLimited, Endpoint: parts, Count: 1, RetryAfter: time.Second}
		}, [3]float64{1, 2, 0}, 3},
		"one request a minute": {pace.Rules{{Glob: "*", Override: pace.Override{PerHour: 60}}}, nil, [3]float64{3, 0, 0}, 2},
		"the connection broke": {nil, func(*world) simnet.Fault {
			return simnet.Fault{Kind: simnet.Reset, Endpoint: parts, Count: 1}
		}, [3]float64{0, 3, 0}, 4},
		"blocks are too much for it": {nil, func(*world) simnet.Fault {
			return simnet.Fault{Kind: simnet.ServerError, Status: 504, Endpoint: parts}
		}, [3]float64{3, 0, 0}, 2},
		"limited for ever": {nil, func(*world) simnet.Fault {
			return simnet.Fault{Kind: simnet.RateLimited, Endpoint: parts, RetryAfter: time.Second}
		}, [3]float64{3, 0, 0}, 2},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, reg := newSparseWorld(t, simnet.Options{Seed: 3, Hosts: 1, Repos: 3, RecordsMedian: 700}, filter.Config{Collections: []string{"app.bsky.feed.repost"}},
				fetch.StrategySparse, func(o *backfill.Options) { o.HostRules = test.rules })
			if test.fault != nil {
				w.Net.Host(0).Inject(test.fault(w))
			}
			for _, did := range w.Net.DIDs() {
				w.Add(did)
				w.patiently(did)
				w.fits(did)
			}
			if n := ways(t, reg); n != test.want {
				t.Errorf("fetched full, sparse, fallback: %v, want %v", n, test.want)
			}
			if n := w.Net.Host(0).Log().Requests[proofs]; n != test.proofs {
				t.Errorf("%d proofs were asked for, want %d", n, test.proofs)
			}
			w.Gauges()
		})
	}
}
