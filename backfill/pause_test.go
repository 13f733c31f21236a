package backfill_test

import (
	"testing"
	"time"

	"cistern/backfill"
	"cistern/backfill/backfilltest"
	"cistern/ingest/simnet"
)

// TestPause: during a pause no task starts, and tasks in flight are finished. After it, tasks start
// again.
func TestPause(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 2, Repos: 40, RecordsMedian: 5}, runner: backfill.Options{PerHost: 2}})
	slow := w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.Latency, Delay: 200 * time.Millisecond})
	w.Net.Host(1).Inject(simnet.Fault{Kind: simnet.Latency, Delay: 200 * time.Millisecond})
	w.Add(w.Net.DIDs()...)
	w.Until("the first fetches", func() bool { return slow.Fired() > 0 })
	w.Gate.Shut(backfilltest.Pausing)
	w.Until("what is in flight to end", func() bool { return w.Run.Syncing() == 0 })
	synced := w.Store.Counts()["synced"]
	w.looked()
	if d := backfill.Idles(w.Run); d <= 0 {
		t.Errorf("the dispatcher waits for %s while nothing is to do", d)
	}
	if c := w.Store.Counts(); synced == 0 || c["synced"] != synced || c["pending"] != 40-synced || c["pending"] == 0 {
		t.Errorf("%d were synced, then %v", synced, c)
	}
	if _, taken := backfill.Permits(w.Run); taken != 0 {
		t.Errorf("%d permits are taken during a pause", taken)
	}
	w.Net.Host(0).ClearFaults()
	w.Net.Host(1).ClearFaults()
	w.Gate.Open(backfilltest.Pausing.Name)
	w.Until("all to be synced", func() bool { return w.Store.Counts()["synced"] == 40 })
}
