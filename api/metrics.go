package api

import "github.com/prometheus/client_golang/prometheus"

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
			Help: "Requests by route and result: ok, the class of the refusal, or cut for an " +
				"incomplete answer.",
		}, []string{"route", "result"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "cistern_api_request_seconds",
			Help:    "Time to answer a request, without streams.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
		}, []string{"route"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cistern_api_unrepresentable_records_total",
			Help: "Records without a JSON form, sent with the reason in their place, or left out of Jetstream.",
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
	return m, nil
}
