package fetch

import "github.com/prometheus/client_golang/prometheus"

// Ways of a fetch, the closed set of the metric's label.
const (
	wayFull     = "full"
	waySparse   = "sparse"
	wayFallback = "fallback" // the whole, since the part was unavailable
)

type metrics struct {
	bytes   prometheus.Counter
	parts   prometheus.Counter
	fetches *prometheus.CounterVec // strategy: full, sparse, fallback
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		bytes: counter("cistern_backfill_received_bytes_total",
			"Bytes of bodies received from hosts, as transferred."),
		parts: counter("cistern_backfill_sparse_received_bytes_total",
			"Bytes of bodies received as parts of repositories, as transferred."),
		fetches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cistern_backfill_fetches_total",
			Help: "Copies fetched and verified, by how: the whole, the wanted parts, or the whole because " +
				"the parts were unavailable.",
		}, []string{"strategy"}),
	}
	for _, strategy := range []string{wayFull, waySparse, wayFallback} {
		m.fetches.WithLabelValues(strategy)
	}
	for _, c := range []prometheus.Collector{m.bytes, m.parts, m.fetches} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
