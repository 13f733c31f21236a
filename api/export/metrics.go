package export

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	bytes      prometheus.Counter
	cached     prometheus.Counter
	built      prometheus.Counter
	mismatches prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	trees := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cistern_api_export_trees_total",
		Help: "Trees needed for CARs, by source: cached, or built from all rows of a repository.",
	}, []string{"source"})
	m := &metrics{
		cached: trees.WithLabelValues("cached"), built: trees.WithLabelValues("built"),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cistern_api_export_bytes_total",
			Help: "Bytes of CARs written.",
		}),
		mismatches: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cistern_api_export_mismatches_total",
			Help: "Copies of repositories whose records do not make the tree of their commit.",
		}),
	}
	for _, c := range []prometheus.Collector{trees, m.bytes, m.mismatches} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
