package deliver

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	subscribers prometheus.Gauge
	snapshots   prometheus.Gauge
	events      prometheus.Counter
	bytes       prometheus.Counter
	read        prometheus.Counter // pages
	shared      prometheus.Counter // pages
	// reason: peer, message, dropped, replayed, shutdown, slow, cursor, internal
	ended   *prometheus.CounterVec
	refused prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, refused prometheus.Counter) (*metrics, error) {
	pages := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cistern_api_stream_pages_total",
		Help: "Pages of events for streams, by source: read from the log, or shared.",
	}, []string{"source"})
	m := &metrics{
		refused: refused,
		read:    pages.WithLabelValues("read"), shared: pages.WithLabelValues("shared"),
		subscribers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "cistern_api_subscribers", Help: "Open streams.",
		}),
		snapshots: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "cistern_api_snapshots", Help: "Streams that are sending a snapshot.",
		}),
		events: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cistern_api_stream_events_total", Help: "Events sent to subscribers.",
		}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cistern_api_stream_bytes_total", Help: "Bytes of events sent to subscribers.",
		}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cistern_api_streams_ended_total",
			Help: "Ended streams by reason: peer (the client left), message (it sent what is not " +
				"understood), dropped or replayed (its subscription), shutdown, slow (it did not " +
				"read), cursor (it is outside the log), internal (see the log).",
		}, []string{"reason"}),
	}
	for _, c := range []prometheus.Collector{m.subscribers, m.snapshots, m.events,
		m.bytes, pages, m.ended} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	for _, reason := range []string{"peer", "message", "dropped", "replayed", "shutdown", "slow",
		"cursor", "internal"} {
		m.ended.WithLabelValues(reason)
	}
	return m, nil
}
