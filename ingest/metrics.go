package ingest

import (
	"time"

	"cistern/ingest/frame"

	"github.com/prometheus/client_golang/prometheus"
)

// Kinds of failures of a connection, the closed set of a metric's label.
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
	messages   [frame.KindError + 1]prometheus.Counter // kind: those of frame
	bad        prometheus.Counter                      // kind: bad
	bytes      prometheus.Counter
	failures   *prometheus.CounterVec // kind: dial, http, closed, timeout, silent, error, read
	reconciles prometheus.Counter
	restarts   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, r *Runner) (*metrics, error) {
	messages := vec("messages_total", "Messages read from sources.", "kind")
	m := &metrics{
		bad:        messages.WithLabelValues("bad"),
		bytes:      counter("received_bytes_total", "Bytes of messages read from sources."),
		failures:   vec("failures_total", "Connections to sources that failed or could not be made.", "kind", failDial, failHTTP, failClosed, failTimeout, failSilent, failError, failRead),
		reconciles: counter("reconciles_total", "Times that events were missed, so that a source's listing is compared."),
		restarts:   counter("restarts_total", "Times that a cursor was given up, because the source counts anew or sends what cannot be read."),
	}
	for k := range m.messages {
		m.messages[k] = messages.WithLabelValues(frame.Kind(k).String())
	}
	for _, c := range []prometheus.Collector{
		messages, m.bytes, m.failures, m.reconciles, m.restarts,
		gauge("sources", "Sources that are followed.", func() float64 { return float64(r.sources.count(nil)) }),
		gauge("connected_sources", "Sources that are connected.", func() float64 { return float64(r.sources.count((*source).connected)) }),
		gauge("queue_bytes", "Memory of messages read and not yet handled.", func() float64 { return float64(r.sources.queued.Load()) }),
		gauge("lag_seconds", "The longest time between now and what the newest event of a connected relay states.", func() float64 { return r.sources.lag().Seconds() }),
		eventAges{r, prometheus.NewDesc(metricPrefix+"source_event_age_seconds",
			"The time since the newest event of a source was read, or since it is followed while none was.", []string{"source"}, nil)},
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

const metricPrefix = "cistern_ingest_"

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: metricPrefix + name, Help: help})
}

// vec is a counter for each of a closed set of values.
func vec(name, help, label string, values ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: metricPrefix + name, Help: help}, []string{label})
	for _, value := range values {
		v.WithLabelValues(value)
	}
	return v
}

func gauge(name, help string, f func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: metricPrefix + name, Help: help}, f)
}

// eventAges is a gauge for each source: the one label that is an open set, of what the operator named, sourcesMax at most.
type eventAges struct {
	r    *Runner
	desc *prometheus.Desc
}

func (a eventAges) Describe(ch chan<- *prometheus.Desc) { ch <- a.desc }

func (a eventAges) Collect(ch chan<- prometheus.Metric) {
	for _, src := range a.r.sources.all() {
		if !src.isRemoved() {
			ch <- prometheus.MustNewConstMetric(a.desc, prometheus.GaugeValue, src.eventAge().Seconds(), src.url)
		}
	}
}

// lag is that of the relay furthest behind. PDSes may have nothing to say for days.
func (s *sources) lag() time.Duration {
	var longest time.Duration
	for _, src := range s.all() {
		if src.connected() && !src.pds.Load() {
			longest = max(longest, src.lag())
		}
	}
	return longest
}
