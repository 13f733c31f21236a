package firehose

import (
	"time"

	"cistern/ingest/frame"

	"github.com/prometheus/client_golang/prometheus"
)

// Kinds of failures of a connection, which are the closed set of a metric's label.
const (
	failDial    = "dial"
	failHTTP    = "http"
	failClosed  = "closed"
	failTimeout = "timeout"
	failSilent  = "silent"
	failError   = "error"
	failRead    = "read"
)

type metrics struct {
	// of sources:
	messages   [frame.KindError + 1]prometheus.Counter // kind: the kinds of package frame
	bad        prometheus.Counter                      // kind: bad
	bytes      prometheus.Counter
	failures   *prometheus.CounterVec // kind: dial, http, closed, timeout, silent, error, read
	reconciles prometheus.Counter
	restarts   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, s *Sources) (*metrics, error) {
	messages := vec("cistern_ingest_messages_total", "Messages read from sources.", "kind")
	m := &metrics{
		bad: messages.WithLabelValues("bad"),
		bytes: counter("cistern_ingest_received_bytes_total",
			"Bytes of messages read from sources."),
		failures: vec("cistern_ingest_failures_total",
			"Connections to sources that failed or could not be made.",
			"kind", failDial, failHTTP, failClosed, failTimeout, failSilent, failError, failRead),
		reconciles: counter("cistern_ingest_reconciles_total",
			"Comparisons of a source's listing that missed messages caused."),
		restarts: counter("cistern_ingest_restarts_total",
			"Cursors given up because the source began a new count or sent an unreadable message again "+
				"and again."),
	}
	for k := range m.messages {
		m.messages[k] = messages.WithLabelValues(frame.Kind(k).String())
	}
	for _, c := range []prometheus.Collector{
		messages, m.bytes, m.failures, m.reconciles, m.restarts,
		gauge("cistern_ingest_sources", "Sources that are followed.",
			func() float64 { return float64(s.count(nil)) }),
		gauge("cistern_ingest_connected_sources", "Sources that are connected.",
			func() float64 { return float64(s.count((*Source).connected)) }),
		gauge("cistern_ingest_queue_bytes", "Memory of messages that are read and not yet handled.",
			func() float64 { return float64(s.queued.Load()) }),
		gauge("cistern_ingest_lag_seconds", "Age of the newest event of the connected relay that is "+
			"furthest behind, by the time that the event states.",
			func() float64 { return s.lag().Seconds() }),
		eventAges{s, prometheus.NewDesc("cistern_ingest_source_event_age_seconds",
			"Time since the newest event of a source was read, or since the source was added if none was.",
			[]string{"source"}, nil)},
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

// vec returns a counter for each of a closed set of values.
func vec(name, help, label string, values ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	for _, value := range values {
		v.WithLabelValues(value)
	}
	return v
}

func gauge(name, help string, f func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
}

// eventAges is a gauge for each source. Its label is the only one with an open set of values: the
// sources that the operator names, sourcesMax at most.
type eventAges struct {
	s    *Sources
	desc *prometheus.Desc
}

func (a eventAges) Describe(ch chan<- *prometheus.Desc) { ch <- a.desc }

func (a eventAges) Collect(ch chan<- prometheus.Metric) {
	for _, src := range a.s.all() {
		if !src.isRemoved() {
			ch <- prometheus.MustNewConstMetric(a.desc, prometheus.GaugeValue,
				src.eventAge().Seconds(), src.url)
		}
	}
}

// lag returns the lag of the relay that is furthest behind. PDSes do not count, as they may have
// nothing to send for days.
func (s *Sources) lag() time.Duration {
	var longest time.Duration
	for _, src := range s.all() {
		if src.connected() && !src.pds.Load() {
			longest = max(longest, src.lag())
		}
	}
	return longest
}
