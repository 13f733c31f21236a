package webhook

import "github.com/prometheus/client_golang/prometheus"

// metrics counts what becomes of the requests of all webhooks, by the name of the subscription.
type metrics struct {
	requests *prometheus.CounterVec // name, result: classes
	events   *prometheus.CounterVec // name
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cistern_api_webhook_requests_total",
			Help: "Requests to webhooks by subscription and result.",
		}, []string{"name", "result"}),
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cistern_api_webhook_events_total",
			Help: "Events that webhooks have taken, by subscription.",
		}, []string{"name"}),
	}
	for _, c := range []prometheus.Collector{m.requests, m.events} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// begin has the counters of a webhook exist.
func (m *metrics) begin(name string) {
	m.events.WithLabelValues(name)
	for _, class := range classes {
		m.requests.WithLabelValues(name, class)
	}
}

// forget drops the counters of a subscription that has no webhook any more.
func (m *metrics) forget(name string) {
	m.events.DeleteLabelValues(name)
	m.requests.DeletePartialMatch(prometheus.Labels{"name": name})
}
