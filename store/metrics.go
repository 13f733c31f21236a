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

// newMetrics registers the metrics of the store. Its gauges are the exact counters.
func newMetrics(r prometheus.Registerer, s *Store) (*metrics, error) {
	m := &metrics{groups: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "cistern_store_import_groups_total",
		Help: "Import groups written, by way: tables that are ingested, or batches."}, []string{"way"}),
		diskSlow: prometheus.NewCounter(prometheus.CounterOpts{Name: "cistern_store_disk_slow_total",
			Help: "File operations that took longer than five seconds."})}
	errs := []error{r.Register(m.groups), r.Register(m.diskSlow)}
	for i, name := range countNames {
		o := prometheus.GaugeOpts{Name: "cistern_store_" + name, Help: "Exact counter " + name + ", as in /stats."}
		switch name { // gauges that an operator watches have a text of their own
		case "behind":
			o = prometheus.GaugeOpts{Name: "cistern_repos_behind", Help: "Followed repositories that are known to have a later rev than our copy."}
		case "returning":
			o = prometheus.GaugeOpts{Name: "cistern_repos_returning", Help: "Active accounts that stay hidden for a while because their status changed too often."}
		case "lacking":
			o = prometheus.GaugeOpts{Name: "cistern_repos_lacking", Help: "Repositories that do not agree with the filter yet."}
		}
		errs = append(errs, r.Register(prometheus.NewGaugeFunc(o, func() float64 {
			s.seq.mu.Lock()
			defer s.seq.mu.Unlock()
			return float64(s.seq.counts[i])
		})))
	}
	for _, g := range []struct {
		name, help string
		value      func() float64
	}{
		{"cistern_store_head", "Newest durable event id.", func() float64 { return float64(s.Head()) }},
		{"cistern_store_tail", "Oldest event id that the log keeps.", func() float64 { return float64(s.Tail()) }},
		{"cistern_store_log_bytes", "Size of the log as --retention-bytes counts it.",
			func() float64 { return float64(s.logBytes.Load()) }},
		{"cistern_store_disk_bytes", "Disk space that the store takes, in bytes.",
			func() float64 { return float64(s.engineMetrics().DiskSpaceUsage()) }},
		{"cistern_store_compaction_debt_bytes", "Bytes that must be compacted until the levels have their target sizes.",
			func() float64 { return float64(s.engineMetrics().Compact.EstimatedDebt) }},
	} {
		errs = append(errs, r.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: g.name, Help: g.help}, g.value)))
	}
	return m, errors.Join(errs...)
}
