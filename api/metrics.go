package api

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	requests *prometheus.CounterVec   // route, result
	seconds  *prometheus.HistogramVec // route
	refused  prometheus.Counter
	conns    *prometheus.CounterVec // result: refused, evicted

	subscribers prometheus.Gauge
	events      prometheus.Counter
	bytes       prometheus.Counter
	encoded     prometheus.Counter     // pages
	shared      prometheus.Counter     // pages
	ended       *prometheus.CounterVec // reason: peer, message, shutdown, slow, cursor, internal
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	pages := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cistern_api_stream_pages_total", Help: "Pages of events sent to streams, by source: encoded or shared.",
	}, []string{"source"})
	m := &metrics{
		encoded: pages.WithLabelValues("encoded"), shared: pages.WithLabelValues("shared"),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cistern_api_requests_total",
			Help: "Requests by route and result: ok, or the class of the refusal.",
		}, []string{"route", "result"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "cistern_api_request_seconds",
			Help:    "Time to answer a request, without streams.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
		}, []string{"route"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cistern_api_unrepresentable_records_total",
			Help: "Records without a JSON form, sent with the reason in place of their body.",
		}),
		conns: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cistern_api_connections_limited_total",
			Help: "Connections refused because their client had its share, and idle connections evicted.",
		}, []string{"result"}),
		subscribers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "cistern_api_subscribers", Help: "Open streams.",
		}),
		events: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cistern_api_stream_events_total", Help: "Events sent to subscribers.",
		}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cistern_api_stream_bytes_total", Help: "Bytes of events sent to subscribers.",
		}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cistern_api_streams_ended_total", Help: "Ended streams by reason.",
		}, []string{"reason"}),
	}
	for _, c := range []prometheus.Collector{m.requests, m.seconds, m.refused, m.conns, m.subscribers, m.events, m.bytes, pages, m.ended} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
