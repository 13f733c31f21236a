package store

import (
	"errors"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	groups   *prometheus.CounterVec
	tableSeq atomic.Uint64 // names import tables
	diskSlow prometheus.Counter
}

// newMetrics registers what the store tells of itself. The gauges are the exact counters.
func newMetrics(r prometheus.Registerer, s *Store) (*metrics, error) {
	m := &metrics{groups: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "cistern_store_import_groups_total",
		Help: "Import groups written, by way: ingested tables or ordinary batches."}, []string{"way"}),
		diskSlow: prometheus.NewCounter(prometheus.CounterOpts{Name: "cistern_store_disk_slow_total",
			Help: "File operations that took longer than five seconds."})}
	errs := []error{r.Register(m.groups), r.Register(m.diskSlow)}
	for i, name := range countNames {
		o := prometheus.GaugeOpts{Name: "cistern_store_" + name, Help: "Exact counter " + name + ", as in /stats."}
		switch name { // what an operator watches
		case "behind":
			o = prometheus.GaugeOpts{Name: "cistern_repos_behind", Help: "Repositories that are known to have a later rev than what is held."}
		case "returning":
			o = prometheus.GaugeOpts{Name: "cistern_repos_returning", Help: "Active accounts that stay hidden for a while because their status changed too often."}
		case "lacking":
			o = prometheus.GaugeOpts{Name: "cistern_repos_lacking", Help: "Repositories that do not hold yet what the filter wants of them."}
		}
		errs = append(errs, r.Register(prometheus.NewGaugeFunc(o, func() float64 {
			s.seq.mu.Lock()
			defer s.seq.mu.Unlock()
			return float64(s.seq.counts[i])
		})))
	}
	for name, fn := range map[string]func() float64{
		"cistern_store_head":       func() float64 { return float64(s.Head()) },
		"cistern_store_tail":       func() float64 { return float64(s.Tail()) },
		"cistern_store_disk_bytes": func() float64 { return float64(s.db.Metrics().DiskSpaceUsage()) },
		"cistern_store_compaction_debt_bytes": func() float64 {
			return float64(s.db.Metrics().Compact.EstimatedDebt)
		},
	} {
		errs = append(errs, r.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: "Of the store."}, fn)))
	}
	return m, errors.Join(errs...)
}
