package maintain

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// tally counts what an operation did since the process started.
type tally struct {
	succeeded, failed, cancelled int64 // runs that have ended
	ran                          time.Duration
}

func (t *tally) count(err error, cancelled bool) {
	switch {
	case err == nil:
		t.succeeded++
	case cancelled:
		t.cancelled++
	default:
		t.failed++
	}
}

// metrics tell what the operations do, as of the moment at which they are collected.
type metrics struct {
	state func() ([]Status, []tally)

	running, pending, success, lastFailed, failures, runs, seconds *prometheus.Desc
}

func newMetrics(state func() ([]Status, []tally)) *metrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("cistern_maintain_"+name, help,
			append([]string{"operation"}, labels...), nil)
	}
	return &metrics{state: state,
		running: desc("running", "1 while the operation runs."),
		pending: desc("pending", "1 while a run of the operation is requested, or was interrupted, "+
			"and does not run."),
		success: desc("last_success_timestamp_seconds",
			"When the operation last succeeded, also before a restart. 0: never."),
		lastFailed: desc("last_failed", "1 if the last run of the operation failed or was cancelled."),
		failures:   desc("failures", "Failures of the operation since its last success."),
		runs: desc("runs_total",
			"Runs of the operation that have ended, by result: success, failure or cancelled.",
			"result"),
		seconds: desc("seconds_total", "Time for which the operation has run, without the time since "+
			"it began if it runs."),
	}
}

// Describe is that of prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.running, m.pending, m.success, m.lastFailed, m.failures,
		m.runs, m.seconds} {
		ch <- d
	}
}

// Collect is that of prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	all, tallies := m.state()
	for i, s := range all {
		gauge := func(d *prometheus.Desc, value float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, s.Name)
		}
		counter := func(d *prometheus.Desc, value float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, value,
				append([]string{s.Name}, labels...)...)
		}
		runs := s.Condition == Running || s.Condition == Stopping
		gauge(m.running, one(runs))
		gauge(m.pending, one(s.Requested || !runs && s.Condition != Idle))
		gauge(m.success, stamp(s.Succeeded))
		gauge(m.lastFailed, one(s.Error != ""))
		gauge(m.failures, float64(s.Failures))
		counter(m.runs, float64(tallies[i].succeeded), "success")
		counter(m.runs, float64(tallies[i].failed), "failure")
		counter(m.runs, float64(tallies[i].cancelled), "cancelled")
		counter(m.seconds, tallies[i].ran.Seconds())
	}
}

func one(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// stamp returns unix seconds, 0 for the zero time.
func stamp(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
