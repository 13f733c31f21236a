package backfill_test

import (
	"testing"
	"time"

	"cistern/backfill"
	"cistern/backfill/fetch"
	"cistern/filter"
	"cistern/ingest/simnet"
	"cistern/store"
)

// TestSignalMisses: an account that shows a signal again and again, without a record of it when it
// is fetched, is not fetched each time. Once it holds a record, it is followed.
func TestSignalMisses(t *testing.T) {
	t.Parallel()
	const signal = "com.example.rare.thing"
	w := newWorld(t, worldOptions{
		net:    simnet.Options{Seed: 4, Hosts: 1, Repos: 2, RecordsMedian: 15},
		runner: backfill.Options{Strategy: fetch.StrategyFull},
	})
	did := w.Net.DIDs()[0]
	w.refilter(filter.Config{Signals: []string{signal}})
	rests := func() bool { // forgotten, or not due
		row, err := w.Store.RepoOrNew(did)
		if err != nil {
			t.Fatal(err)
		}
		return (!row.Known() || row.State == store.StateResync && row.Retry.Next > w.Clock.Now().Unix()) && !w.Run.InFlight(did)
	}
	show := func() {
		if w.Known(did) {
			return // a known repository is not discovered
		}
		w.follow(store.BySignal, did)
		w.Until("its end", rests)
	}
	asked := func() (n int) { return w.Net.Host(0).Log().Requests["com.atproto.sync.getRepo"] }
	for range 20 {
		show()
	}
	if n := asked(); n != 2 {
		t.Errorf("%d fetches", n)
	}
	for range 60 {
		w.Clock.Advance(2 * time.Minute)
		w.Run.Wake()
		w.Until("its end", rests)
		show()
	}
	if n := asked(); n < 5 || n > 12 {
		t.Errorf("%d fetches within two hours", n)
	}
	if _, err := w.Net.Account(did).Put(signal+"/a", map[string]any{"$type": signal}); err != nil {
		t.Fatal(err)
	}
	w.Until("it to be followed", func() bool {
		w.Clock.Advance(time.Minute)
		if !w.Known(did) {
			w.follow(store.BySignal, did)
		}
		w.Run.Wake()
		row, err := w.Store.RepoOrNew(did)
		return err == nil && row.State == store.StateSynced
	})
	w.converges(did)
}
