package backfill_test

import (
	"testing"
	"time"

	"cistern/backfill"
	"cistern/ingest/simnet"
)

// TestPause: during a pause no task starts, and tasks in flight are finished. After it, tasks start
// again.
func TestPause(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 2, Repos: 40, RecordsMedian: 5}, runner: backfill.Options{PerHost: 2}})
	slow := w.net.Host(0).Inject(simnet.Fault{Kind: simnet.Latency, Delay: 200 * time.Millisecond})
	w.net.Host(1).Inject(simnet.Fault{Kind: simnet.Latency, Delay: 200 * time.Millisecond})
	w.add(w.net.DIDs()...)
	w.until("the first fetches", func() bool { return slow.Fired() > 0 })
	w.gate.Shut(pausing)
	w.until("what is in flight to end", func() bool { return w.run.Syncing() == 0 })
	synced := w.store.Counts()["synced"]
	w.looked()
	if d := backfill.Idles(w.run); d <= 0 {
		t.Errorf("the dispatcher waits for %s while nothing is to do", d)
	}
	if c := w.store.Counts(); synced == 0 || c["synced"] != synced || c["pending"] != 40-synced || c["pending"] == 0 {
		t.Errorf("%d were synced, then %v", synced, c)
	}
	if _, taken := backfill.Permits(w.run); taken != 0 {
		t.Errorf("%d permits are taken during a pause", taken)
	}
	w.net.Host(0).ClearFaults()
	w.net.Host(1).ClearFaults()
	w.gate.Open(pausing.Name)
	w.until("all to be synced", func() bool { return w.store.Counts()["synced"] == 40 })
}
