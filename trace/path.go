package trace

import (
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	otel "go.opentelemetry.io/otel/trace"
)

// Path is one trace: a root span, and below it a span for each step, one after the other. The zero
// Path traces nothing. A Path may be moved by copying it; only the last copy is used.
type Path struct {
	tracer *Tracer
	root   otel.Span
	step   otel.Span // nil before the first step
}

// On reports whether the path traces, for callers to which an attribute costs something.
func (p *Path) On() bool { return p.tracer != nil }

// Step ends the step before, and begins the next.
func (p *Path) Step(name string) {
	if p.tracer == nil {
		return
	}
	now := p.tracer.opts.Now()
	p.endStep(now)
	p.step = p.tracer.span(p.root, name, now)
}

// Text sets an attribute of the root span. An empty text sets nothing.
func (p *Path) Text(key, value string) {
	if p.tracer != nil && value != "" {
		p.root.SetAttributes(attribute.String(key, clip(value)))
	}
}

// Number sets an attribute of the root span.
func (p *Path) Number(key string, n int64) {
	if p.tracer != nil {
		p.root.SetAttributes(attribute.Int64(key, n))
	}
}

// Fail marks the trace as failed, with the kind of its error from a closed set, and the error,
// which may be nil.
func (p *Path) Fail(kind string, err error) {
	if p.tracer == nil {
		return
	}
	text := kind
	if err != nil {
		text = err.Error()
	}
	p.root.SetAttributes(attribute.String("error.type", kind))
	p.root.SetStatus(codes.Error, clip(text))
}

// End ends the last step and the root span, and the path traces nothing from then on.
func (p *Path) End() {
	if p.tracer == nil {
		return
	}
	now := p.tracer.opts.Now()
	p.endStep(now)
	p.root.End(otel.WithTimestamp(now))
	*p = Path{}
}

func (p *Path) endStep(now time.Time) {
	if p.step != nil {
		p.step.End(otel.WithTimestamp(now))
	}
}

// clip bounds a text, and makes it valid UTF-8, without which the collector refuses the span.
func clip(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), textBytesMax)], "")
}
