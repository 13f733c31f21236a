package trace

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// sender is the sdk.SpanProcessor that queues spans which have ended, and sends them. The one of the
// library starts a goroutine when it is made.
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

// run sends batches until ctx ends, and then what waits.
func (s *sender) run(ctx context.Context) error {
	tick := time.NewTicker(sendEvery)
	defer tick.Stop()
	batch := make([]sdk.ReadOnlySpan, 0, batchMax)
	for ctx.Err() == nil {
		select {
		case span := <-s.queue:
			batch = append(batch, span)
			if len(batch) == batchMax {
				batch = s.send(ctx, batch)
			}
		case <-tick.C:
			batch = s.send(ctx, batch)
		case <-ctx.Done():
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	for len(s.queue) > 0 && last.Err() == nil {
		if batch = append(batch, <-s.queue); len(batch) == batchMax {
			batch = s.send(last, batch)
		}
	}
	s.send(last, batch)
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
