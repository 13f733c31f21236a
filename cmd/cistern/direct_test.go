package main

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"cistern/backfill/discover"
	"cistern/ingest/simnet"
)

// TestDaemonFollowsAHostDirectly has a relay that throttles most accounts of a host and stays
// silent about them. The listing of the host changes, so the daemon must follow the host itself.
func TestDaemonFollowsAHostDirectly(t *testing.T) {
	t.Parallel()
	n := startNetwork(t, simnet.Options{Seed: 61, Repos: 6, Hosts: 1, RecordsMedian: 5, Manners: simnet.Indigo})
	n.RelayHost().SetAccountLimit(2)
	x := newTestIndex(t)
	tune := hasty()
	tune.discover = func(o *discover.Options) { o.CrawlEvery = 200 * time.Millisecond }
	args := x.args(n, "--relay", n.Relay(), "--mode", "full")
	stop := x.startTuned(t, args, tune)
	x.settle(t, map[string]int64{"synced": 6})
	x.follow(t, n.RelayHost())
	direct := func() error {
		var sources []struct {
			URL             string
			Direct, Running bool
		}
		if err := x.call(t.Context(), "GET", "/firehose/sources", nil, func(b []byte) error { return json.Unmarshal(b, &sources) }); err != nil {
			return err
		}
		for _, src := range sources {
			if src.Direct && src.Running {
				return nil
			}
		}
		return fmt.Errorf("sources %+v", sources)
	}
	if direct() == nil {
		t.Error("a host is followed directly although its listing has not moved")
	}
	last := n.Accounts()[5]
	if _, err := last.Mutate(1); err != nil {
		t.Fatal(err)
	}
	x.await(t, "the host to be followed directly", direct)
	x.awaitRevs(t, n.Accounts())
	if err := n.Host(0).WaitConnections(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	stop()
	stop = x.startTuned(t, args, hasty()) // whose lists are read once a day: what comes now comes from the host's firehose
	x.await(t, "the host to be followed directly after a restart", direct)
	if _, err := last.Mutate(1); err != nil {
		t.Fatal(err)
	}
	x.awaitRevs(t, n.Accounts())
	stop()
	x.wantStore(t, n.Accounts())
}
