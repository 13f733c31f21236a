package backfill

import (
	"cistern/store"

	"github.com/prometheus/client_golang/prometheus"
)

// Results of a task: the closed set of values of the metric label.
const (
	resultSynced  = "synced"
	resultGone    = "gone"
	resultStale   = "stale"
	resultDropped = "dropped"
)

func resultOf(v verdict) string {
	if v.ending == endGone {
		return resultGone
	}
	return v.kind.String()
}

type metrics struct {
	tasks    *prometheus.CounterVec // by result: a result constant, or the kind of a failure
	requeued prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, d *dispatcher) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
	}
	m := &metrics{
		tasks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cistern_backfill_tasks_total",
			Help: "Tasks of backfill that have ended, by result: synced, gone (the account is not " +
				"available), stale (the row changed meanwhile), dropped (no longer followed), or " +
				"the kind of the failure.",
		}, []string{"result"}),
		requeued: counter("cistern_backfill_requeued_total",
			"Repositories requeued because a retry was due."),
	}
	for _, result := range []string{resultSynced, resultGone, resultStale, resultDropped,
		store.RateLimited.String(), store.Transport.String(), store.Generic.String()} {
		m.tasks.WithLabelValues(result)
	}
	for _, c := range []prometheus.Collector{
		m.tasks, m.requeued,
		gauge("cistern_backfill_syncing_repos", "Repositories being fetched or about to become visible.",
			func() float64 { return float64(d.syncing()) }),
		gauge("cistern_backfill_waiting_repos", "Resolved repositories that wait in memory for a permit.",
			func() float64 { return float64(d.waiting()) }),
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
