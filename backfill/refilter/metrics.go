package refilter

import "github.com/prometheus/client_golang/prometheus"

// The results of a pass for a repository: the closed set of the metric's label.
const (
	resultSwept   = "swept"
	resultQueued  = "queued"
	resultDropped = "dropped"
)

type metrics struct {
	repos *prometheus.CounterVec // result: swept, queued, dropped
}

func newMetrics(reg prometheus.Registerer, r *Runner) (*metrics, error) {
	m := &metrics{repos: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cistern_backfill_refiltered_repos_total",
		Help: "Repositories that a changed filter led to be looked through, fetched or forgotten.",
	}, []string{"result"})}
	running := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "cistern_backfill_refiltering",
		Help: "1 while repositories are being brought to a filter that was changed.",
	}, func() float64 {
		if _, running, err := r.Progress(); err != nil || !running {
			return 0
		}
		return 1
	})
	for _, c := range []prometheus.Collector{m.repos, running} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	for _, result := range []string{resultSwept, resultQueued, resultDropped} {
		m.repos.WithLabelValues(result)
	}
	return m, nil
}
