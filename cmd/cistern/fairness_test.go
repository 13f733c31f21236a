package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"cistern/ingest/simnet"
)

// lopsided returns a network with one host that has 19 of 20 accounts, and other hosts that share
// the rest.
func lopsided(t *testing.T, others, hosts int) *simnet.Network {
	t.Helper()
	n, err := simnet.New(simnet.Options{Seed: 6, Hosts: hosts + 1, Repos: hosts + 1, RecordsMedian: 5, NoLimit: true})
	if err != nil {
		t.Fatal(err)
	}
	for i := range others - hosts {
		n.AddAccount(n.Host(1 + i%hosts))
	}
	for range 19*others - 1 {
		n.AddAccount(n.Host(0))
	}
	if err := errors.Join(n.Start(t.Context()), n.Build(t.Context())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// crawlArgs returns options that crawl all hosts of a network.
func (x *testIndex) crawlArgs(n *simnet.Network) []string {
	return x.args(n, "--mode", "full", "--crawl", "hosts::"+n.Relay())
}

// setBackfill starts and stops the fetches.
func (x *testIndex) setBackfill(t *testing.T, on bool) {
	t.Helper()
	body := bytes.NewBufferString(fmt.Sprintf(`{"backfill": %t}`, on))
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, "http://"+x.admin+"/ingestion", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatalf("PATCH /ingestion: %s", res.Status)
	}
}

// queue waits until so many repositories are discovered, with fetches switched off.
func (x *testIndex) queue(t *testing.T, n *simnet.Network, repos int) {
	t.Helper()
	x.startTuned(t, x.crawlArgs(n), hasty())
	x.setBackfill(t, false)
	x.awaitFor(t, 10*time.Minute, "all to be queued", func() error {
		counts, err := x.counts(t.Context())
		if err == nil && counts["repos"] != int64(repos) {
			err = fmt.Errorf("%d of %d", counts["repos"], repos)
		}
		return err
	})
}

// TestLargeHostDelaysNoOther has a host with 19 of 20 repositories that answers nothing until the
// repositories of all other hosts are copied.
func TestLargeHostDelaysNoOther(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	const others = 40
	n := lopsided(t, others, 8)
	release := make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	t.Cleanup(free)
	n.Host(0).Inject(simnet.Fault{Kind: simnet.Gate, Hook: func() { <-release }})
	x := newTestIndex(t)
	x.queue(t, n, 20*others)
	x.setBackfill(t, true)
	x.await(t, "the others", func() error {
		counts, err := x.counts(t.Context())
		if err == nil && counts["synced"] < others {
			err = fmt.Errorf("%d of %d: %v", counts["synced"], others, counts)
		}
		return err
	})
	if log := n.Host(0).Log(); log.InFlight == 0 || len(log.Fetches) != log.InFlight {
		t.Errorf("%d requests to the large host wait, of %d", log.InFlight, len(log.Fetches))
	}
	n.Host(0).ClearFaults()
	free()
	x.settle(t, map[string]int64{"synced": 20 * others})
}

// TestFairness measures by how much a host with 19 of 20 repositories and 200 ms an answer slows
// the other hosts, from the start of the fetches until the last repository of the others is
// requested. CISTERNTEST_FAIRNESS is the number of their repositories; without it the test is
// skipped. Where they answer at once, the processor decides, which other work on the machine
// shares: then the rate per second of processor time is the better measure.
func TestFairness(t *testing.T) {
	others, err := strconv.Atoi(os.Getenv("CISTERNTEST_FAIRNESS"))
	if err != nil {
		t.Skip("CISTERNTEST_FAIRNESS is not the number of the others' repositories")
	}
	for _, latency := range []time.Duration{0, 20 * time.Millisecond, 100 * time.Millisecond} {
		t.Run(latency.String(), func(t *testing.T) {
			var without, with, ratios, costs []float64
			for i := range 5 {
				t.Run(fmt.Sprintf("without/%d", i), func(t *testing.T) {
					rate, cost := othersRate(t, others, latency, false)
					without, costs = append(without, rate), append(costs, cost)
				})
				t.Run(fmt.Sprintf("with/%d", i), func(t *testing.T) {
					rate, cost := othersRate(t, others, latency, true)
					with, costs = append(with, rate), append(costs, cost)
				})
				if t.Failed() {
					return
				}
				ratios = append(ratios, with[i]/without[i])
				costs = append(costs[:i], costs[i+1]/costs[i])
			}
			slices.Sort(ratios)
			slices.Sort(costs)
			t.Logf("others answer after %s: %.0f repositories/s without a large host, %.0f with it; ratios %.2f, by second of processor %.2f",
				latency, without, with, ratios, costs)
		})
	}
}

// othersRate returns how many repositories of the small hosts are requested a second, and how many
// a second of processor time, part of which the simulated network takes. Without the large host,
// that host is dead before its accounts are listed, and all else is the same.
func othersRate(t *testing.T, others int, latency time.Duration, large bool) (rate, perProcessor float64) {
	n := lopsided(t, others, 40)
	total := 20 * others
	n.Host(0).Inject(simnet.Fault{Kind: simnet.Latency, Delay: 200 * time.Millisecond})
	if !large {
		total = others
		if err := n.Host(0).Die(); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range n.Hosts()[1:] {
		if latency > 0 {
			h.Inject(simnet.Fault{Kind: simnet.Latency, Delay: latency})
		}
	}
	x := newTestIndex(t)
	x.queue(t, n, total)
	runtime.GC()
	begun, used := time.Now(), processorTime(t)
	x.setBackfill(t, true)
	for {
		time.Sleep(100 * time.Millisecond) // copies of logs cost something
		fetched, last := 0, begun
		for _, h := range n.Hosts()[1:] {
			for _, at := range h.Log().Fetches {
				fetched++
				if at[0].After(last) {
					last = at[0]
				}
			}
		}
		if fetched == others {
			return float64(others) / last.Sub(begun).Seconds(), float64(others) / (processorTime(t) - used).Seconds()
		}
		if time.Since(begun) > 10*time.Minute {
			t.Fatalf("%d of %d", fetched, others)
		}
	}
}
