package condition

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	waiting    *prometheus.GaugeVec // condition
	unreadable *prometheus.GaugeVec // condition
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		waiting: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "cistern_condition_waiting",
			Help: "1 while the condition pauses backfill and crawling, else 0.",
		}, []string{"condition"}),
		unreadable: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "cistern_condition_unreadable",
			Help: "1 while the measure of the condition cannot be read, else 0.",
		}, []string{"condition"}),
	}
	for _, c := range []prometheus.Collector{m.waiting, m.unreadable} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) set(s Status) {
	m.waiting.WithLabelValues(s.Name).Set(number(s.State == Waiting))
	m.unreadable.WithLabelValues(s.Name).Set(number(s.Error != ""))
}

func number(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
