package logs

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
)

// levels are the levels that the daemon uses, from the least severe on.
var levels = [...]slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError}

// metrics count lines by level.
type metrics struct {
	all, omitted            *prometheus.CounterVec
	byLevel, byLevelOmitted [len(levels)]prometheus.Counter
}

func newMetrics() *metrics {
	m := &metrics{
		all: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "cistern_log_lines_total",
			Help: "Lines of the log by level, with those that were left out. Lines below " +
				"--log-level are not counted."}, []string{"level"}),
		omitted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cistern_log_left_out_lines_total",
			Help: "Lines that were not written because many of the same kind came within a " +
				"minute, by level."}, []string{"level"}),
	}
	for i, l := range levels {
		m.byLevel[i], m.byLevelOmitted[i] = m.all.WithLabelValues(label(l)),
			m.omitted.WithLabelValues(label(l))
	}
	return m
}

func label(l slog.Level) string {
	switch l {
	case slog.LevelDebug:
		return "debug"
	case slog.LevelInfo:
		return "info"
	case slog.LevelWarn:
		return "warn"
	}
	return "error"
}

// place returns the index in levels of the nearest level that is not more severe.
func place(l slog.Level) int {
	for i := len(levels) - 1; i > 0; i-- {
		if l >= levels[i] {
			return i
		}
	}
	return 0
}

func (m *metrics) lines(l slog.Level) prometheus.Counter   { return m.byLevel[place(l)] }
func (m *metrics) leftOut(l slog.Level) prometheus.Counter { return m.byLevelOmitted[place(l)] }

// Describe implements prometheus.Collector.
func (h *Handler) Describe(out chan<- *prometheus.Desc) {
	h.metrics.all.Describe(out)
	h.metrics.omitted.Describe(out)
}

// Collect implements prometheus.Collector.
func (h *Handler) Collect(out chan<- prometheus.Metric) {
	h.metrics.all.Collect(out)
	h.metrics.omitted.Collect(out)
}
