package durable

import "github.com/prometheus/client_golang/prometheus"

// webhookParked is 1 if there is a webhook and it is parked.
func (st *Status) webhookParked() float64 {
	if st.Webhook != nil && st.Webhook.ParkedSince != nil {
		return 1
	}
	return 0
}

// Describe sends no description: each subscription has metrics of its own.
func (r *Registry) Describe(chan<- *prometheus.Desc) {}

// Collect sends the metrics of all subscriptions.
func (r *Registry) Collect(out chan<- prometheus.Metric) {
	for _, st := range r.All() {
		snapshots, records := 0, uint64(0)
		if st.Snapshot != nil {
			snapshots, records = 1, st.Snapshot.Records
		}
		for _, m := range []struct {
			kind       prometheus.ValueType
			name, help string
			value      float64
		}{
			{prometheus.GaugeValue, "lag_events",
				"Ids of the log that the subscription has not passed.", float64(st.Lag)},
			{prometheus.GaugeValue, "outstanding_events",
				"Events that were sent to the consumer and not acknowledged.", float64(st.Outstanding)},
			{prometheus.GaugeValue, "oldest_outstanding_seconds",
				"How long the first of the outstanding events has been so; 0 without any.", orZero(st.Oldest)},
			{prometheus.GaugeValue, "connections",
				"Open connections of the subscription.", float64(len(st.Connections))},
			{prometheus.GaugeValue, "holds_log_seconds", "Age of the oldest event that is in the " +
				"log only because the subscription has not acknowledged it; 0 without any.",
				orZero(st.HoldsLog)},
			{prometheus.GaugeValue, "snapshot",
				"1 if the subscription delivers a snapshot, before the log.", float64(snapshots)},
			{prometheus.GaugeValue, "snapshot_records", "Records of the snapshot that were " +
				"chosen so far; 0 without one.", float64(records)},
			{prometheus.CounterValue, "redelivered_total",
				"Events that were sent to the consumer again.", float64(st.Redelivered)},
			{prometheus.GaugeValue, "webhook_parked",
				"1 if the webhook of the subscription is parked, and no events are sent.",
				st.webhookParked()},
		} {
			name := "cistern_api_subscription_" + m.name
			desc := prometheus.NewDesc(name, m.help, []string{"name"}, nil)
			out <- prometheus.MustNewConstMetric(desc, m.kind, m.value, st.Name)
		}
	}
}

func orZero(n *float64) float64 {
	if n == nil {
		return 0
	}
	return *n
}
