package trace

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	otel "go.opentelemetry.io/otel/trace"
)

// Tracer begins traces. A nil Tracer begins none.
type Tracer struct {
	opts   Options
	tracer otel.Tracer
	sender *sender
}

// New returns a Tracer. It starts nothing: call Run, or nothing is sent.
func New(o Options) (*Tracer, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("trace options: %w", err)
	}
	endpoint, err := url.Parse(o.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("trace options: %w", err)
	}
	if endpoint.Path == "" || endpoint.Path == "/" {
		endpoint.Path = "/v1/traces"
	}
	spans, err := newMetrics(o.Registerer)
	if err != nil {
		return nil, err
	}
	s := &sender{spans: spans, logger: o.Logger, endpoint: endpoint.Redacted(),
		queue: make(chan sdk.ReadOnlySpan, queueMax),
		exporter: otlptracehttp.NewUnstarted(otlptracehttp.WithEndpointURL(endpoint.String()),
			otlptracehttp.WithTimeout(sendTimeout),
			otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: false}))}
	provider := sdk.NewTracerProvider(sdk.WithSpanProcessor(s), sdk.WithSampler(sdk.AlwaysSample()),
		sdk.WithResource(resource.NewSchemaless(attribute.String("service.name", "cistern"),
			attribute.String("service.version", o.Version))))
	return &Tracer{opts: o, sender: s, tracer: provider.Tracer("cistern")}, nil
}

// Run sends spans until ctx ends, and then those that wait, within flushTimeout. It returns nil: a
// collector that fails does not stop the daemon. A nil Tracer waits for the end.
func (t *Tracer) Run(ctx context.Context) error {
	if t == nil {
		<-ctx.Done()
		return nil
	}
	return t.sender.run(ctx)
}

// Begin begins a trace, whose root span has a name and begins at a time, now if that is zero. It
// returns the zero Path if this trace is not among those that are sampled.
func (t *Tracer) Begin(name string, at time.Time) Path {
	if t == nil || t.opts.Share < 1 && rand.Float64() >= t.opts.Share {
		return Path{}
	}
	if at.IsZero() {
		at = t.opts.Now()
	}
	return Path{tracer: t, root: t.span(nil, name, at)}
}

// span begins a span below a parent, or a root span if that is nil.
func (t *Tracer) span(parent otel.Span, name string, at time.Time) otel.Span {
	// A trace outlives the calls that it passes through: it belongs to no context of theirs.
	ctx := context.Background()
	if parent != nil {
		ctx = otel.ContextWithSpan(ctx, parent)
	}
	_, s := t.tracer.Start(ctx, name, otel.WithTimestamp(at))
	return s
}
