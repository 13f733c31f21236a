package names

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	lookups *prometheus.CounterVec // of handles, by result
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{lookups: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cistern_names_lookups_total",
		Help: "Lookups of handles for clients of the public listener, by result: cached, found, " +
			"missing, failed, refused.",
	}, []string{"result"})}
	for _, result := range []string{"cached", "found", "missing", "failed", "refused"} {
		m.lookups.WithLabelValues(result)
	}
	return m, reg.Register(m.lookups)
}
