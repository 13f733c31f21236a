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

// The ways of writing an import group: the closed set of the metric's label.
const (
	wayTables = "tables"
	wayBatch  = "batch"
)

// countGauges are the gauges of the exact counters, in the order of count. The number of
// repositories is the sum over their states, and has no gauge of its own.
var countGauges = [countMax]struct{ name, label, value, help string }{
	countRecords: {name: "cistern_store_records", help: "Records of all stored repositories."},
	countBlocks:  {name: "cistern_store_blocks", help: "Bodies of records that are stored."},
	countEvents:  {name: "cistern_store_events", help: "Entries of the log. An import is one."},
	countCollections: {name: "cistern_store_collections",
		help: "Collections of all repositories: one for each repository and collection."},
	countCollectionNames: {name: "cistern_store_collection_names",
		help: "Different names of collections."},
	countPending:  stateGauge("pending"),
	countSynced:   stateGauge("synced"),
	countResync:   stateGauge("resync"),
	countGone:     stateGauge("gone"),
	countIdle:     stateGauge("idle"),
	countDraining: stateGauge("draining"),
	countBuffered: {name: "cistern_store_buffered_commits",
		help: "Commits that wait until the copy of their repository is complete."},
	countBehind: {name: "cistern_repos_behind",
		help: "Followed repositories that are known to have a later rev than our copy."},
	countLacking: {name: "cistern_repos_lacking",
		help: "Repositories that do not agree with the filter yet."},
	countReturning: {name: "cistern_repos_returning",
		help: "Active accounts that stay hidden for a while because their status changed too often."},
	countRateLimited: kindGauge("ratelimited"),
	countTransport:   kindGauge("transport"),
	countGeneric:     kindGauge("generic"),
}

func stateGauge(state string) struct{ name, label, value, help string } {
	return struct{ name, label, value, help string }{"cistern_repos", "state", state,
		"Repositories by state, as in /stats."}
}

func kindGauge(kind string) struct{ name, label, value, help string } {
	return struct{ name, label, value, help string }{"cistern_repos_failing", "kind", kind,
		"Repositories in state resync because their last fetch failed, by kind of the failure."}
}

// newMetrics registers the metrics of the store. Its gauges are the exact counters.
func newMetrics(r prometheus.Registerer, s *Store) (*metrics, error) {
	m := &metrics{groups: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "cistern_store_import_groups_total",
		Help: "Import groups written, by way: tables that are ingested, or batches.",
	}, []string{"way"}),
		diskSlow: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cistern_store_disk_slow_total",
			Help: "File operations that took longer than five seconds."})}
	for _, way := range []string{wayTables, wayBatch} {
		m.groups.WithLabelValues(way)
	}
	errs := []error{r.Register(m.groups), r.Register(m.diskSlow)}
	gauge := func(o prometheus.GaugeOpts, value func() float64) {
		errs = append(errs, r.Register(prometheus.NewGaugeFunc(o, value)))
	}
	for i, g := range countGauges {
		if g.name == "" {
			continue
		}
		o := prometheus.GaugeOpts{Name: g.name, Help: g.help}
		if g.label != "" {
			o.ConstLabels = prometheus.Labels{g.label: g.value}
		}
		gauge(o, func() float64 {
			s.seq.mu.Lock()
			defer s.seq.mu.Unlock()
			return float64(s.seq.counts[i])
		})
	}
	for _, g := range []struct {
		name, help string
		value      func() float64
	}{
		{"cistern_store_head", "Newest durable event id.",
			func() float64 { return float64(s.Head()) }},
		{"cistern_store_tail", "Oldest event id that the log keeps.",
			func() float64 { return float64(s.Tail()) }},
		{"cistern_store_log_bytes", "Size of the log as --retention-bytes counts it.",
			func() float64 { return float64(s.logBytes.Load()) }},
		{"cistern_store_disk_bytes", "Disk space that the store takes.",
			func() float64 { return float64(s.engineMetrics().DiskSpaceUsage()) }},
		{"cistern_store_compaction_debt_bytes",
			"Bytes that must be compacted until the levels have their target sizes.",
			func() float64 { return float64(s.engineMetrics().Compact.EstimatedDebt) }},
	} {
		gauge(prometheus.GaugeOpts{Name: g.name, Help: g.help}, g.value)
	}
	return m, errors.Join(errs...)
}
