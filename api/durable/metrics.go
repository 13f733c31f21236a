package durable

import "github.com/prometheus/client_golang/prometheus"

// Describe sends no description: each subscription has metrics of its own.
func (r *Registry) Describe(chan<- *prometheus.Desc) {}

// Collect sends the metrics of all subscriptions.
func (r *Registry) Collect(out chan<- prometheus.Metric) {
	for _, st := range r.All() {
		oldest := 0.0
		if st.Oldest != nil {
			oldest = *st.Oldest
		}
		for _, m := range []struct {
			kind       prometheus.ValueType
			name, help string
			value      float64
		}{
			{prometheus.GaugeValue, "lag_events",
				"Ids of the log that the subscription has not passed.", float64(st.Lag)},
			{prometheus.GaugeValue, "outstanding_events",
				"Events sent and not acknowledged.", float64(st.Outstanding)},
			{prometheus.GaugeValue, "oldest_outstanding_seconds",
				"How long the first of these has been outstanding; 0 without any.", oldest},
			{prometheus.GaugeValue, "connections",
				"Open connections of the subscription.", float64(len(st.Connections))},
			{prometheus.CounterValue, "redelivered_total",
				"Events sent again.", float64(st.Redelivered)},
		} {
			name := "cistern_api_subscription_" + m.name
			desc := prometheus.NewDesc(name, m.help, []string{"name"}, nil)
			out <- prometheus.MustNewConstMetric(desc, m.kind, m.value, st.Name)
		}
	}
}
