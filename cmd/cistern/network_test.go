package main

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/backfill/discover"
	"cistern/ingest/simnet"
)

// wholeNetwork is a simulated network whose hosts do all that real hosts do to an indexer.
type wholeNetwork struct {
	*simnet.Network
	dead      []*simnet.Host // never answer
	returning []*simnet.Host // answer later
}

// networkLimit is the rate limit of every host. It admits more requests at a time than Cistern
// sends by default, and fewer in all than a large host has accounts. It counts getRepo separately.
var networkLimit = simnet.Limit{InFlight: 16, Requests: 300, Fetches: 600, Window: 4 * time.Second}

func newWholeNetwork(t *testing.T, hosts, accounts int) *wholeNetwork {
	t.Helper()
	n, err := simnet.New(simnet.Options{Seed: 4, Hosts: hosts, Repos: accounts, Skew: 1.5, QuietEvery: 3,
		RecordsMedian: 5, Empty: 3, OddKeys: 3, LegacyEvery: 50, Limit: networkLimit})
	if err != nil {
		t.Fatal(err)
	}
	w := &wholeNetwork{Network: n}
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	for i, h := range n.Hosts() {
		w.trouble(t, i, h)
	}
	return w
}

// trouble gives each kind of failure to every twentieth host, some large ones included.
func (w *wholeNetwork) trouble(t *testing.T, i int, h *simnet.Host) {
	const every = "*"
	switch i % 20 {
	case 1:
		h.Inject(simnet.Fault{Kind: simnet.Latency, Delay: 20 * time.Millisecond})
	case 2:
		h.Inject(simnet.Fault{Kind: simnet.RateLimited, Endpoint: every, RetryAfter: 2 * time.Second, Count: 2})
	case 3:
		w.returning = append(w.returning, h)
	case 4:
		h.Inject(simnet.Fault{Kind: simnet.ServerError, Endpoint: every, Count: 2})
	case 5:
		h.Inject(simnet.Fault{Kind: simnet.Hang, Count: 2})
	case 6:
		h.Inject(simnet.Fault{Kind: simnet.RateLimited, RetryAfter: 3 * time.Second, RetryAs: simnet.RateLimitReset, Count: 1})
	case 7:
		h.Inject(simnet.Fault{Kind: simnet.ServerError, RetryAfter: 2 * time.Second, Count: 1})
	case 8:
		h.Inject(simnet.Fault{Kind: simnet.Reset, Count: 1})
	case 9:
		w.dead = append(w.dead, h)
	}
	if i%20 == 3 || i%20 == 9 {
		if err := h.Die(); err != nil {
			t.Fatal(err)
		}
	}
}

// on returns the accounts that live on some hosts, and those that do not.
func (w *wholeNetwork) on(hosts []*simnet.Host) (there, elsewhere []*simnet.Account) {
	for _, a := range w.Accounts() {
		if slices.Contains(hosts, a.Host()) {
			there = append(there, a)
		} else {
			elsewhere = append(elsewhere, a)
		}
	}
	return there, elsewhere
}

// fromEnviron returns a size that a variable may set.
func fromEnviron(t *testing.T, name string, standard, short int) int {
	t.Helper()
	if testing.Short() {
		standard = short
	}
	text := os.Getenv(name)
	if text == "" {
		return standard
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// TestWholeNetwork discovers and copies a network of a thousand hosts. A few hosts have half of all
// accounts, and no relay knows a third of the accounts. Hosts answer 429 and 503, hang, die, and
// return or do not.
func TestWholeNetwork(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	w := newWholeNetwork(t, fromEnviron(t, "CISTERNTEST_HOSTS", 1000, 100), fromEnviron(t, "CISTERNTEST_ACCOUNTS", 3000, 400))
	lost, reachable := w.on(w.dead)
	missing, early := w.on(slices.Concat(w.dead, w.returning))
	x := newTestIndex(t)
	begun := time.Now()
	stop := x.startTuned(t, w.args(x), patient())
	if err := x.call(t.Context(), "PUT", "/repos", dids(lost), nil); err != nil { // no host will name them
		t.Fatal(err)
	}
	half := len(early) / 2
	x.reach(t, "half of those on hosts that live", half, func(n int64) bool { return n >= int64(half) })
	t.Logf("%d of %d accounts after %s; %d are missing", half, len(w.Accounts()), time.Since(begun).Round(time.Millisecond), len(missing))

	for i, a := range reachable { // some of them make themselves known
		if i%17 == 0 {
			if _, err := a.Mutate(1 + i%3); err != nil {
				t.Error(err)
			}
		}
	}
	for _, h := range w.returning {
		if err := h.Up(); err != nil {
			t.Fatal(err)
		}
	}
	x.reach(t, "all on hosts that live or returned", len(reachable), func(n int64) bool { return n == int64(len(reachable)) })
	w.settle(t, x, reachable)
	took := time.Since(begun)
	t.Logf("all %d reachable ones after %s", len(reachable), took.Round(time.Millisecond))
	w.wantMercy(t, took)
	stop()
	x.wantStore(t, reachable)
}

// args returns options that discover the whole network by a relay that knows all hosts.
func (w *wholeNetwork) args(x *testIndex) []string {
	return x.args(w.Network, "--mode", "full", "--relay", w.Relay(), "--crawl", "hosts::"+w.Relay())
}

// patient is hasty with hosts that hang, and slow to retry those that fail.
func patient() tuning {
	tune := hasty()
	tune.backfill = func(o *backfill.Options) {
		o.IdleTimeout, o.FetchTimeout = 5*time.Second, 20*time.Second
		o.RetryBase, o.RetryMax = 300*time.Millisecond, time.Minute
	}
	tune.discover = func(o *discover.Options) { o.IdleTimeout = 5 * time.Second }
	return tune
}

func dids(accounts []*simnet.Account) []string {
	list := make([]string, len(accounts))
	for i, a := range accounts {
		list[i] = a.DID()
	}
	return list
}

// reach waits until so many repositories are synced.
func (x *testIndex) reach(t *testing.T, what string, of int, enough func(synced int64) bool) {
	t.Helper()
	x.awaitFor(t, 5*time.Minute, what, func() error {
		counts, err := x.counts(t.Context())
		if err == nil && !enough(counts["synced"]) {
			err = fmt.Errorf("%d of %d: %v", counts["synced"], of, counts)
		}
		return err
	})
}

// settle waits until every commit is stored and nothing lags.
func (w *wholeNetwork) settle(t *testing.T, x *testIndex, reachable []*simnet.Account) {
	t.Helper()
	want := records(reachable)
	x.await(t, "what was written meanwhile", func() error {
		counts, err := x.counts(t.Context())
		if err == nil && (counts["records"] != want || counts["behind"] != 0 || counts["buffered"] != 0) {
			err = fmt.Errorf("%d records, want %d: %v", counts["records"], want, counts)
		}
		return err
	})
}

// wantMercy checks how many requests each host received.
func (w *wholeNetwork) wantMercy(t *testing.T, took time.Duration) {
	t.Helper()
	refused, most := 0, 0
	for i, h := range w.Hosts() {
		log := h.Log()
		refused += log.Refused
		most = max(most, log.InFlightMax)
		if log.Violations() > 0 {
			t.Errorf("host %d was asked too early %v, or too much at a time %d times; %v", i, log.Early, log.Excess, log.Requests)
		}
	}
	// A host that never answers is tried after 1, 2, 4 ... seconds, both for fetches and for
	// listings. The first attempt may have as many requests at a time as an unproven host may get.
	bound := 2*int(math.Log2(took.Seconds()+1)+1) + 8
	attempts := 0
	for _, h := range w.dead {
		resets := len(h.Log().Resets)
		attempts = max(attempts, resets)
		if resets > bound || resets < 2 {
			t.Errorf("a dead host was asked %d times in %s, want 2 to %d", resets, took, bound)
		}
	}
	t.Logf("%d requests refused by windows, most at a time %d; %d attempts at most on %d dead hosts in %s", refused, most,
		attempts, len(w.dead), took.Round(time.Millisecond))
}
