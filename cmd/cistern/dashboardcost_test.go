package main

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"cistern/ingest/simnet"

	"github.com/prometheus/procfs"
)

// TestDashboardCost measures what an open dashboard costs a daemon with CISTERNTEST_ROWS repositories:
// the time of a processor for each refresh.
func TestDashboardCost(t *testing.T) {
	rows := int(testNumber(t, "CISTERNTEST_ROWS", 0))
	if rows == 0 {
		t.Skip("measures, with CISTERNTEST_ROWS=1000000")
	}
	network := startNetwork(t, simnet.Options{Seed: 23, Repos: 3, Hosts: 1})
	m := &manyRows{t: t, n: rows, index: newTestIndex(t), network: network}
	m.build()
	c := m.start(m.index.args(network, "--relay", network.Relay()))
	p, err := procfs.NewProc(c.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	const refreshes, pause = 300, 100 * time.Millisecond
	spent := func(refresh func()) time.Duration {
		before, err := p.Stat()
		if err != nil {
			t.Fatal(err)
		}
		for range refreshes {
			refresh()
			time.Sleep(pause)
		}
		after, err := p.Stat()
		if err != nil {
			t.Fatal(err)
		}
		return time.Duration((after.CPUTime() - before.CPUTime()) * float64(time.Second))
	}
	alone := spent(func() {})
	query, size := "", 0
	open := spent(func() {
		var o struct {
			Charts map[string]struct{ Start float64 }
		}
		if err := m.index.call(t.Context(), "GET", "/overview"+query, nil, func(b []byte) error {
			size = len(b)
			return json.Unmarshal(b, &o)
		}); err != nil {
			t.Fatal(err)
		}
		query = fmt.Sprintf("?hour=%d&day=%[1]d&log=1000", time.Now().Unix()-10)
	})
	each := (open - alone) / refreshes
	m.say("a refresh takes %s of a processor and has %d bytes: every five seconds, %.3f %%", each, size, 100*each.Seconds()/5)
	m.stop(c)
}
