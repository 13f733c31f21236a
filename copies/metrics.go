package copies

import "github.com/prometheus/client_golang/prometheus"

// metrics reports the copies as of the time of collection. A destination is not a label, because a
// command may name any.
type metrics struct {
	state func() ([]Status, map[Kind]int)

	running, success, seconds, bytes, failing, failures *prometheus.Desc
}

func newMetrics(state func() ([]Status, map[Kind]int)) *metrics {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("cistern_copies_"+name, help, []string{"kind"}, nil)
	}
	return &metrics{state: state,
		running: desc("running",
			"Copies of the store that commands make now, by kind: backup or export."),
		success: desc("last_success_timestamp_seconds", "When a command last completed a copy, at any "+
			"destination, also before a restart. 0: no complete copy is known."),
		seconds: desc("duration_seconds", "Duration of the last complete copy."),
		bytes:   desc("size_bytes", "Size of the last complete copy."),
		failing: desc("failing", "Destinations whose last copy ended with an error or without a "+
			"result."),
		failures: desc("failures_total", "Copies by commands that ended with an error or without a "+
			"result. The daemon does not try them again."),
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.running, m.success, m.seconds, m.bytes, m.failing,
		m.failures} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	all, failures := m.state()
	for _, kind := range kinds {
		var last Row
		running, failing := 0, 0
		for _, s := range all {
			if s.Kind != kind {
				continue
			}
			running += s.Running
			if s.Failures > 0 {
				failing++
			}
			if s.Succeeded.After(last.Succeeded) {
				last = s.Row
			}
		}
		gauge := func(d *prometheus.Desc, value float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, string(kind))
		}
		gauge(m.running, float64(running))
		at := 0.0
		if !last.Succeeded.IsZero() {
			at = float64(last.Succeeded.UnixMilli()) / 1000
		}
		gauge(m.success, at)
		gauge(m.seconds, last.Took.Seconds())
		gauge(m.bytes, float64(last.Bytes))
		gauge(m.failing, float64(failing))
		ch <- prometheus.MustNewConstMetric(m.failures, prometheus.CounterValue,
			float64(failures[kind]), string(kind))
	}
}
