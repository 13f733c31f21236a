package backup

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics tell how the backups of a Maker go.
type metrics struct {
	success  prometheus.Gauge
	seconds  prometheus.Gauge
	uploaded prometheus.Counter
	failures prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		success: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "cistern_backup_last_success_timestamp_seconds",
			Help: "When the newest complete backup of this log was begun. 0: none is known."}),
		seconds: prometheus.NewGauge(prometheus.GaugeOpts{Name: "cistern_backup_duration_seconds",
			Help: "How long the last backup took that succeeded."}),
		uploaded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cistern_backup_uploaded_bytes_total",
			Help: "Bytes of files that backups have stored, without those that were there."}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "cistern_backup_failures_total",
			Help: "Backups that failed. Each is tried again."}),
	}
	return m, errors.Join(r.Register(m.success), r.Register(m.seconds), r.Register(m.uploaded),
		r.Register(m.failures))
}
