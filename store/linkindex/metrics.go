package linkindex

import "github.com/prometheus/client_golang/prometheus"

// metrics are those that are not in the state.
type metrics struct{ refused prometheus.Counter }

func newMetrics() *metrics {
	return &metrics{prometheus.NewCounter(prometheus.CounterOpts{
		Name: "cistern_backlinks_refused_records_total",
		Help: "Records that were indexed without links, as they exceed a limit of links.",
	})}
}

// Describe implements prometheus.Collector: the metrics depend on nothing.
func (x *Index) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(x, out) }

// Collect sends the metrics of the index.
func (x *Index) Collect(out chan<- prometheus.Metric) {
	st := x.State()
	building, failed := 0., 0.
	if st.Building {
		building = 1
	}
	if st.Err != nil {
		failed = 1
	}
	lag := uint64(0)
	if head := x.opts.Store.Head(); head > st.Through {
		lag = head - st.Through
	}
	for _, m := range []struct {
		name, help string
		value      float64
	}{
		{"links", "Links in the backlinks index.", float64(st.Links)},
		{"lag_events", "Ids of the log that the backlinks index does not have yet.", float64(lag)},
		{"disk_bytes", "Disk space that the backlinks index takes, in bytes, as of its last write.",
			float64(x.bytes.Load())},
		{"building", "1 while the backlinks index does not have all stored records yet.", building},
		{"built_records", "Records that were indexed since building began; 0 if nothing is being " +
			"built.", float64(st.Done)},
		{"failed", "1 while the backlinks index cannot be written.", failed},
	} {
		desc := prometheus.NewDesc("cistern_backlinks_"+m.name, m.help, nil, nil)
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, m.value)
	}
	x.metrics.refused.Collect(out)
}
