package trace

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// sender is the sdk.SpanProcessor that queues spans which have ended, and sends them. The one of
// the library starts a goroutine when it is made.
type sender struct {
	exporter sdk.SpanExporter
	endpoint string // without a password
	queue    chan sdk.ReadOnlySpan
	spans    *prometheus.CounterVec // result
	logger   *slog.Logger

	failing bool // owned by run
}

// OnStart implements sdk.SpanProcessor.
func (s *sender) OnStart(context.Context, sdk.ReadWriteSpan) {}

// OnEnd implements sdk.SpanProcessor. It never blocks.
func (s *sender) OnEnd(span sdk.ReadOnlySpan) {
	select {
	case s.queue <- span:
	default:
		s.spans.WithLabelValues(resultDropped).Inc()
	}
}

// Shutdown implements sdk.SpanProcessor. Run ends the sending.
func (s *sender) Shutdown(context.Context) error { return nil }

// ForceFlush implements sdk.SpanProcessor.
func (s *sender) ForceFlush(context.Context) error { return nil }

// run sends batches until ctx ends, and then what waits. A request that is under way when ctx ends
// goes on: ctx and flushTimeout together end it.
func (s *sender) run(ctx context.Context) error {
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	end := time.AfterFunc(sendTimeout, cancel)
	end.Stop()
	defer end.Stop()
	defer context.AfterFunc(ctx, func() { end.Reset(flushTimeout) })()
	tick := time.NewTicker(sendEvery)
	defer tick.Stop()
	batch := make([]sdk.ReadOnlySpan, 0, batchMax)
	for ctx.Err() == nil {
		select {
		case span := <-s.queue:
			batch = append(batch, span)
			if len(batch) == batchMax {
				batch = s.send(sending, batch)
			}
		case <-tick.C:
			batch = s.send(sending, batch)
		case <-ctx.Done():
		}
	}
	for len(s.queue) > 0 && sending.Err() == nil {
		if batch = append(batch, <-s.queue); len(batch) == batchMax {
			batch = s.send(sending, batch)
		}
	}
	s.send(sending, batch)
	if lost := len(s.queue); lost > 0 {
		s.spans.WithLabelValues(resultDropped).Add(float64(lost))
		s.logger.Warn("the daemon stopped before all spans of traces were sent: the last ones are lost",
			"endpoint", s.endpoint, "spans", lost)
	}
	return nil
}

// send sends a batch, counts its spans, and returns an empty one.
func (s *sender) send(ctx context.Context, batch []sdk.ReadOnlySpan) []sdk.ReadOnlySpan {
	if len(batch) == 0 {
		return batch
	}
	result := resultSent
	err := s.exporter.ExportSpans(ctx, batch)
	if err != nil {
		result = resultFailed
	}
	s.spans.WithLabelValues(result).Add(float64(len(batch)))
	switch was := s.failing; {
	case err != nil && !was:
		s.failing = true
		s.logger.Warn("the collector of traces does not take spans: they are dropped until it does",
			"endpoint", s.endpoint, "err", clip(err.Error())) // it has the body of the answer
	case err == nil && was:
		s.failing = false
		s.logger.Info("the collector of traces takes spans again", "endpoint", s.endpoint)
	}
	clear(batch)
	return batch[:0]
}
