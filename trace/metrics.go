package trace

import "github.com/prometheus/client_golang/prometheus"

// What becomes of a span: the closed set of the metric's label.
const (
	resultSent    = "sent"
	resultFailed  = "failed"  // the collector did not take it
	resultDropped = "dropped" // the queue was full, or the daemon stopped
)

func newMetrics(reg prometheus.Registerer) (*prometheus.CounterVec, error) {
	spans := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "cistern_trace_spans_total",
		Help: "Spans of traces by result: sent, failed (the collector did not take them), dropped " +
			"(too many waited)."}, []string{"result"})
	for _, result := range []string{resultSent, resultFailed, resultDropped} {
		spans.WithLabelValues(result)
	}
	return spans, reg.Register(spans)
}
