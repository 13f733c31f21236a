package trace

import sdk "go.opentelemetry.io/otel/sdk/trace"

// SetExporter has t send to another exporter. Call it before Run.
func (t *Tracer) SetExporter(e sdk.SpanExporter) { t.sender.exporter = e }
