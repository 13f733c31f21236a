package api

import "github.com/prometheus/client_golang/prometheus"

// What happens to a connection beyond the share of its client.
const (
	connRefused = "refused"
	connEvicted = "evicted"
)

type metrics struct {
	requests *prometheus.CounterVec   // route, result
	seconds  *prometheus.HistogramVec // route
	refused  prometheus.Counter
	conns    *prometheus.CounterVec // result: refused, evicted
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cistern_api_requests_total",
			Help: "Requests by route and result: ok, refused (a mistake of the client), failed (an " +
				"internal error), cut (the answer is incomplete).",
		}, []string{"route", "result"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "cistern_api_request_duration_seconds",
			Help:    "Time to answer a request, without streams.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
		}, []string{"route"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cistern_api_unrepresentable_records_total",
			Help: "Records without a JSON form, sent with the reason in their place, or left out of " +
				"Jetstream.",
		}),
		conns: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cistern_api_connections_limited_total",
			Help: "Connections refused because their client had its share, and idle connections evicted.",
		}, []string{"result"}),
	}
	for _, c := range []prometheus.Collector{m.requests, m.seconds, m.refused, m.conns} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	for _, result := range []string{connRefused, connEvicted} {
		m.conns.WithLabelValues(result)
	}
	return m, nil
}
