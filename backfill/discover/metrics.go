package discover

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// kindGap is the kind of pages that are read after missed events.
const kindGap = "gap"

type metrics struct {
	found prometheus.Counter
	pages *prometheus.CounterVec // kind: hosts, repos, collection, gap; outcome: ok, error
}

func newMetrics(reg prometheus.Registerer, r *Runner) (*metrics, error) {
	m := &metrics{
		found: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "cistern_backfill_discovered_total", Help: "Repositories found by crawling.",
		}),
		pages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "cistern_backfill_pages_total",
			Help: "Pages of lists asked for, by kind of the crawl source (gap: after missed events) and " +
				"outcome.",
		}, []string{"kind", "outcome"}),
	}
	for _, c := range append(crawlGauges(r), m.found, m.pages) {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	for _, kind := range slices.Concat(SourceKinds(), []string{kindGap}) {
		m.pages.WithLabelValues(kind, "ok")
		m.pages.WithLabelValues(kind, "error")
	}
	return m, nil
}

// crawlGauges returns the gauges of the crawl sources by kind. The names of sources are not labels.
func crawlGauges(r *Runner) []prometheus.Collector {
	gauge := func(kind, name, help string, f func(CrawlStatus) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help,
			ConstLabels: prometheus.Labels{"kind": kind}}, func() (most float64) {
			for _, s := range r.Crawls() {
				if s.Kind == kind {
					most = max(most, f(s))
				}
			}
			return most
		})
	}
	var all []prometheus.Collector
	for _, kind := range SourceKinds() {
		all = append(all,
			gauge(kind, "cistern_backfill_crawl_lists",
				"Lists (hosts, collections) of the crawl source that has most.",
				func(s CrawlStatus) float64 { return float64(s.Lists) }),
			gauge(kind, "cistern_backfill_crawl_failing_lists",
				"Lists that failed last, of the crawl source that has most.",
				func(s CrawlStatus) float64 { return float64(s.Failing) }),
			gauge(kind, "cistern_backfill_crawl_pass_age_seconds",
				"Time since everything was listed, of the crawl source for which it is longest.",
				func(s CrawlStatus) float64 { return r.opts.Now().Sub(later(s.PassEnded, s.Since)).Seconds() }))
	}
	return all
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
