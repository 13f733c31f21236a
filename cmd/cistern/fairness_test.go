package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"cistern/ingest/simnet"
)

// lopsided is a network one of whose hosts has 19 of 20 accounts, when large is set, and the others the rest.
func lopsided(t *testing.T, others, hosts int, large bool) *simnet.Network {
	t.Helper()
	n, err := simnet.New(simnet.Options{Seed: 6, Hosts: hosts + 1, Repos: hosts + 1, RecordsMedian: 5})
	if err != nil {
		t.Fatal(err)
	}
	for i := range others - hosts {
		n.AddAccount(n.Host(1 + i%hosts))
	}
	for range 19*others - 1 {
		if large {
			n.AddAccount(n.Host(0))
		}
	}
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// crawlArgs lists all hosts of a network.
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

// queue has all repositories discovered, and none fetched.
func (x *testIndex) queue(t *testing.T, n *simnet.Network) {
	t.Helper()
	x.startTuned(t, x.crawlArgs(n), hasty())
	x.setBackfill(t, false)
	x.awaitFor(t, 10*time.Minute, "all to be queued", func() error {
		counts, err := x.counts(t.Context())
		if err == nil && counts["repos"] != int64(len(n.Accounts())) {
			err = fmt.Errorf("%d of %d", counts["repos"], len(n.Accounts()))
		}
		return err
	})
}

// TestLargeHostDelaysNobody has a host with 19 of 20 repositories answer nothing at all until those of all others are copied.
func TestLargeHostDelaysNobody(t *testing.T) {
	t.Parallel()
	const others = 40
	n := lopsided(t, others, 8, true)
	release := make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	t.Cleanup(free)
	n.Host(0).Inject(simnet.Fault{Kind: simnet.Gate, Hook: func() { <-release }})
	x := newTestIndex(t)
	x.queue(t, n)
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

// TestFairness measures, when CISTERNTEST_FAIRNESS says how many repositories the others have, by how much a host with 19 of 20
// repositories and 200 ms an answer slows the others: from the word to begin until the last of theirs is asked for.
func TestFairness(t *testing.T) {
	others, err := strconv.Atoi(os.Getenv("CISTERNTEST_FAIRNESS"))
	if err != nil {
		t.Skip("CISTERNTEST_FAIRNESS is not the number of the others' repositories")
	}
	const hosts = 40
	measure := func(t *testing.T, latency time.Duration, large bool) float64 {
		n := lopsided(t, others, hosts, large)
		for i, h := range n.Hosts() {
			switch {
			case i == 0:
				h.Inject(simnet.Fault{Kind: simnet.Latency, Delay: 200 * time.Millisecond})
			case latency > 0:
				h.Inject(simnet.Fault{Kind: simnet.Latency, Delay: latency})
			}
		}
		x := newTestIndex(t)
		x.queue(t, n)
		begun := time.Now()
		x.setBackfill(t, true)
		var last time.Time
		x.awaitFor(t, 10*time.Minute, "the others", func() error {
			fetched := 0
			for _, h := range n.Hosts()[1:] {
				fetched += h.Log().Requests["com.atproto.sync.getRepo"]
			}
			if fetched < others {
				return fmt.Errorf("%d of %d", fetched, others)
			}
			return nil
		})
		for _, h := range n.Hosts()[1:] {
			for _, at := range h.Log().Fetches {
				if at[0].After(last) {
					last = at[0]
				}
			}
		}
		return float64(others) / last.Sub(begun).Seconds()
	}
	for _, latency := range []time.Duration{0, 20 * time.Millisecond, 100 * time.Millisecond} {
		var ratios, without, with []float64
		for i := range 3 {
			t.Run(fmt.Sprintf("%s/%d", latency, i), func(t *testing.T) { without = append(without, measure(t, latency, false)) })
			t.Run(fmt.Sprintf("%s/%d large", latency, i), func(t *testing.T) { with = append(with, measure(t, latency, true)) })
			ratios = append(ratios, with[i]/without[i])
		}
		slices.Sort(ratios)
		t.Logf("others answer after %s: %.0f repositories/s without, %.0f with a large host; ratio %.2f", latency, without, with, ratios)
	}
}
