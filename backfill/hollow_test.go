package backfill_test

import (
	"testing"

	"cistern/backfill"
	"cistern/backfill/fetch"
	"cistern/filter"
	"cistern/ingest/simnet"
	"cistern/store"
)

// TestHollowRecord: an empty record is stored like any other, and its repository is not fetched
// again and again because of it.
func TestHollowRecord(t *testing.T) {
	t.Parallel()
	for _, strategy := range []fetch.Strategy{fetch.StrategySparse, fetch.StrategyFull} {
		w := newWorld(t, worldOptions{
			net:    simnet.Options{Seed: 3, Hosts: 1, Repos: 1, RecordsMedian: 15},
			runner: backfill.Options{Strategy: strategy},
		})
		did := w.Net.DIDs()[0]
		w.refilter(filter.Config{Collections: []string{posts}})
		w.Add(did)
		w.converges(did)
		if _, err := w.Net.Account(did).Commit(simnet.Write{Path: posts + "/hollow", Record: []byte{}}); err != nil {
			t.Fatal(err)
		}
		w.Net.Host(0).ResetLog()
		w.follow(store.ByOperator, did)
		w.converges(did)
		for method, n := range w.Net.Host(0).Log().Requests {
			if n > 10 {
				t.Errorf("%d requests of %s", n, method)
			}
		}
	}
}
