package identity

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	// of cistern_identity_lookups_total, by result:
	hits, misses, coalesced prometheus.Counter

	// method: plc, web, audit; outcome: ok, not_found, invalid, rate_limited, error
	fetches *prometheus.CounterVec
	seconds prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, entries func() float64) (*metrics, error) {
	lookups := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cistern_identity_lookups_total",
		Help: "Lookups of identities: hit if the cache had it, miss if it was fetched, coalesced if " +
			"it shared the fetch of another lookup.",
	}, []string{"result"})
	m := &metrics{
		hits:      lookups.WithLabelValues("hit"),
		misses:    lookups.WithLabelValues("miss"),
		coalesced: lookups.WithLabelValues("coalesced"),
		fetches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cistern_identity_fetches_total",
			Help: "Requests for DID documents and audit logs, by DID method or audit, and outcome.",
		}, []string{"method", "outcome"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "cistern_identity_fetch_duration_seconds",
			Help:    "Time to fetch and parse one DID document.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
		}),
	}
	for _, method := range []string{"plc", "web", "audit"} {
		for _, outcome := range []string{"ok", "not_found", "invalid", "rate_limited", "error"} {
			m.fetches.WithLabelValues(method, outcome)
		}
	}
	size := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "cistern_identity_cache_entries",
		Help: "Identities and failures held in the cache.",
	}, entries)
	for _, c := range []prometheus.Collector{lookups, m.fetches, m.seconds, size} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
