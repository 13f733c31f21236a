package alert

import "github.com/prometheus/client_golang/prometheus"

// The results of messages.
const (
	resultSent    = "sent"
	resultFailed  = "failed"  // given up
	resultDropped = "dropped" // the queue was full
)

type metrics struct {
	subjects *prometheus.GaugeVec // kind, state
	dropped  prometheus.Gauge
	sent     *prometheus.CounterVec // result
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		subjects: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "cistern_alert_subjects",
			Help: "Subjects that fail, by kind and state: grace or alert.",
		}, []string{"kind", "state"}),
		dropped: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "cistern_alert_unfollowed_failures",
			Help: "Subjects that fail and are not followed, because there are too many.",
		}),
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cistern_alert_messages_total",
			Help: "Messages to the alert webhook, by result: sent, failed, dropped.",
		}, []string{"result"}),
	}
	for _, c := range []prometheus.Collector{m.subjects, m.dropped, m.sent} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	m.set(nil, 0)
	for _, result := range []string{resultSent, resultFailed, resultDropped} {
		m.sent.WithLabelValues(result)
	}
	return m, nil
}

// set shows the subjects that fail.
func (m *metrics) set(all []Subject, dropped int) {
	counts := map[Kind]map[State]int{}
	for _, kind := range Kinds {
		counts[kind] = map[State]int{}
	}
	for _, s := range all {
		if of := counts[s.Kind]; of != nil {
			of[s.Now]++
		}
	}
	for _, kind := range Kinds {
		for _, state := range []State{Grace, Alert} {
			m.subjects.WithLabelValues(string(kind), string(state)).Set(float64(counts[kind][state]))
		}
	}
	m.dropped.Set(float64(dropped))
}
