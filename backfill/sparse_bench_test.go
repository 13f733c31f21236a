package backfill_test

import (
	"fmt"
	"testing"
	"time"

	"cistern/backfill/backfilltest"
	"cistern/backfill/fetch"
	"cistern/filter"
	"cistern/ingest/simnet"
)

// BenchmarkParts copies the wanted records of one repository of 250,000 records, in parts and as a
// whole. Both sides run in this process: the time is that of both, and the network adds one round
// trip for each further request.
func BenchmarkParts(b *testing.B) {
	for _, perMille := range []int{1, 10, 100} {
		for _, strategy := range []fetch.Strategy{fetch.StrategySparse, fetch.StrategyFull} {
			b.Run(fmt.Sprintf("permille=%d/strategy=%d", perMille, strategy), func(b *testing.B) {
				for range b.N {
					b.StopTimer()
					w, reg := newSparseWorld(b, simnet.Options{Hosts: 1, Repos: 1, Empty: 1}, filter.Config{Collections: []string{"app.bsky.feed.post"}}, strategy)
					const n = 250_000
					a := bigAccount(b, w.Net, n, n*perMille/1000)
					cpu := cpuTime()
					b.StartTimer()
					w.Add(a.DID())
					for w.Store.Counts()["synced"] != 1 {
						time.Sleep(time.Millisecond)
					}
					b.StopTimer()
					b.ReportMetric(float64((cpuTime() - cpu).Milliseconds()), "cpu-ms")
					b.ReportMetric(backfilltest.Counted(b, reg, "received_bytes_total", ""), "bytes")
					requests := w.Net.Host(0).Log().Requests
					b.ReportMetric(float64(requests[proofs]+requests[parts]+requests["com.atproto.sync.getRepo"]), "requests")
					w.Stop()
				}
			})
		}
	}
}
