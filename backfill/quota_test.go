package backfill_test

import (
	"testing"
	"time"

	"cistern/backfill/fetch"
	"cistern/filter"
	"cistern/ingest/simnet"
)

// TestQuotasApart: a host whose quota of queries is spent is asked for whole repositories, which
// have a separate quota, and none of its repositories waits for the window of queries. With auto
// that begins when half of the quota is spent.
func TestQuotasApart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		strategy fetch.Strategy
		queries  int // that are left at least
	}{"sparse": {fetch.StrategySparse, 0}, "auto": {fetch.StrategyAuto, 15}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, reg := newSparseWorld(t, simnet.Options{Hosts: 1, Repos: 30, RecordsMedian: 600, RecordsMax: 1000,
				Limit: simnet.Limit{Requests: 40, Fetches: 400, Window: time.Hour}},
				filter.Config{Collections: []string{"app.bsky.actor.profile"}}, c.strategy)
			w.Add(w.Net.DIDs()...)
			w.Settle(w.Net.DIDs()...)
			log, n := w.Net.Host(0).Log(), ways(t, reg)
			if log.Refused != 0 || log.Violations() != 0 || w.Store.Counts()["synced"] != 30 {
				t.Errorf("%d refused, %d too early; %v", log.Refused, log.Violations(), w.Store.Counts())
			}
			if queries := log.Requests[proofs] + log.Requests[parts]; n[1] == 0 || n[0]+n[2] == 0 || queries > 40-c.queries {
				t.Errorf("%v by full, sparse and fallback, with %d queries", n, queries)
			}
		})
	}
}

// TestQuotaRefused: an answer of 429 that names a quota applies to that quota; the other one is
// used meanwhile.
func TestQuotaRefused(t *testing.T) {
	t.Parallel()
	w, _ := newSparseWorld(t, simnet.Options{Hosts: 1, Repos: 4, RecordsMedian: 600, RecordsMax: 1000,
		Limit: simnet.Limit{Requests: 1, Fetches: 400, Window: time.Hour}},
		filter.Config{Collections: []string{"app.bsky.actor.profile"}}, fetch.StrategySparse)
	w.Net.Host(0).Inject(simnet.Fault{Kind: simnet.RateLimited, RetryAfter: time.Hour, RetryAs: simnet.RateLimitReset, Endpoint: proofs, Count: 1})
	w.Add(w.Net.DIDs()...)
	w.Settle(w.Net.DIDs()...)
	if w.Store.Counts()["synced"] != 4 || w.Run.HostStanding(w.hostOf(w.Net.Host(0))).State() != "ok" {
		t.Errorf("%v, %+v", w.Store.Counts(), w.Run.HostStanding(w.hostOf(w.Net.Host(0))))
	}
}
