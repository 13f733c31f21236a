package verify

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// The results for a repository with a copy: the closed set of the metric's label.
const (
	resultIntact   = "intact"
	resultUnproven = "unproven" // intact, but its records are not a whole tree
	resultDamaged  = "damaged"
	resultChanging = "changing" // it changed under every look
)

type metrics struct {
	repos       *prometheus.CounterVec // result
	records     prometheus.Counter
	differences prometheus.Counter
	queued      prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		repos: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cistern_verify_repos_total",
			Help: "Repositories that were verified, by result.",
		}, []string{"result"}),
		records: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cistern_verify_records_total",
			Help: "Records of which the body was hashed.",
		}),
		differences: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cistern_verify_differences_total",
			Help: "Rows of the store that disagree with others. Each was found by two looks.",
		}),
		queued: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cistern_verify_queued_repos_total",
			Help: "Damaged repositories that were queued for another copy.",
		}),
	}
	for _, result := range []string{resultIntact, resultUnproven, resultDamaged, resultChanging} {
		m.repos.WithLabelValues(result)
	}
	return m, errors.Join(r.Register(m.repos), r.Register(m.records), r.Register(m.differences),
		r.Register(m.queued))
}
