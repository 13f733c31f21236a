package trace_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"cistern/trace"

	"github.com/prometheus/client_golang/prometheus"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// sink is a collector that takes spans, or refuses them.
type sink struct {
	*httptest.Server
	refuses atomic.Bool
	mu      sync.Mutex
	spans   []*otlp.Span // mu guards
}

func newSink(t *testing.T) *sink {
	s := &sink{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var request collector.ExportTraceServiceRequest
		if err = errors.Join(err, proto.Unmarshal(body, &request)); err != nil || s.refuses.Load() {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write(bytes.Repeat([]byte("long "), 100_000))
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, resource := range request.ResourceSpans {
			for _, scope := range resource.ScopeSpans {
				s.spans = append(s.spans, scope.Spans...)
			}
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func newTracer(t *testing.T, o trace.Options) (tr *trace.Tracer, run func(), metric func(result string) float64) {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	o.Registerer = reg
	tr, err := trace.New(o)
	if err != nil {
		t.Fatal(err)
	}
	run = func() { // sends what waits
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := tr.Run(ctx); err != nil {
			t.Error(err)
		}
	}
	return tr, run, func(result string) (n float64) {
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range families[0].Metric {
			if m.Label[0].GetValue() == result {
				n = m.GetCounter().GetValue()
			}
		}
		return n
	}
}

// TestNothingTraced: without a Tracer, calls cost no allocation.
func TestNothingTraced(t *testing.T) {
	var off *trace.Tracer
	cause := errors.New("cause")
	if n := testing.AllocsPerRun(100, func() {
		p := off.Begin("fetch", time.Time{})
		p.Text("did", "did:plc:a")
		p.Number("records", 12345)
		p.Step("request")
		p.Fail("transport", cause)
		p.End()
		if p.On() {
			t.Error("a path without a tracer is on")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestTrace: a root, and below it steps that follow each other; what is clipped; an end ends once.
func TestTrace(t *testing.T) {
	t.Parallel()
	s := newSink(t)
	now := time.Unix(1_800_000_000, 0)
	tr, run, metric := newTracer(t, trace.Options{Endpoint: s.URL + "/v1/traces", Share: 1,
		Now: func() time.Time { now = now.Add(time.Second); return now }})
	p := tr.Begin("commit", now.Add(-time.Second))
	p.Text("did", strings.Repeat("ä", 300)+"\xff")
	p.Text("empty", "")
	p.Step("a")
	moved := p
	moved.Step("b")
	moved.Fail("store", errors.New("bad \xff text"))
	moved.End()
	moved.End()
	run()
	if len(s.spans) != 3 || metric("sent") != 3 {
		t.Fatalf("%d spans, %v sent", len(s.spans), metric("sent"))
	}
	var times []int64
	for _, span := range s.spans { // in the order of their ends
		times = append(times, int64(span.StartTimeUnixNano/1e9)-1_800_000_000, int64(span.EndTimeUnixNano/1e9)-1_800_000_000)
	}
	if want := []int64{1, 2, 2, 3, -1, 3}; !slices.Equal(times, want) {
		t.Errorf("times %v, want %v", times, want)
	}
	root := s.spans[2]
	if len(root.Attributes) != 2 || root.Attributes[1].Key != "error.type" || root.Status.Message != "bad  text" {
		t.Errorf("root %v", root)
	}
	if v := root.Attributes[0].Value.GetStringValue(); len(v) != 256 || !utf8.ValidString(v) {
		t.Errorf("a text of %d bytes", len(v))
	}
	for _, child := range s.spans[:2] {
		if !bytes.Equal(child.ParentSpanId, root.SpanId) || !bytes.Equal(child.TraceId, root.TraceId) {
			t.Errorf("%s is not below its root", child.Name)
		}
	}
}

// TestShare: of many traces, about the share is sampled, and each as a whole.
func TestShare(t *testing.T) {
	t.Parallel()
	tr, _, _ := newTracer(t, trace.Options{Endpoint: "http://127.0.0.1:1", Share: 0.1})
	on := 0
	for range 10_000 {
		if p := tr.Begin("fetch", time.Time{}); p.On() {
			on++
		}
	}
	if on < 700 || on > 1300 { // ten standard deviations
		t.Errorf("%d of 10,000 are traced, want about 1,000", on)
	}
}

// TestDropped: spans beyond the queue, and those that the collector refuses, are counted, and the log
// tells once that it does, and once that it takes spans again.
func TestDropped(t *testing.T) {
	t.Parallel()
	s := newSink(t)
	s.refuses.Store(true)
	var out bytes.Buffer
	tr, run, metric := newTracer(t, trace.Options{Endpoint: s.URL, Share: 1,
		Logger: slog.New(slog.NewTextHandler(&out, nil))})
	end := func(n int) {
		for range n {
			p := tr.Begin("fetch", time.Time{})
			p.End()
		}
	}
	end(5000)
	run()
	if metric("dropped") != 5000-4096 || metric("failed") != 4096 || metric("sent") != 0 {
		t.Errorf("%v dropped, %v failed, %v sent", metric("dropped"), metric("failed"), metric("sent"))
	}
	s.refuses.Store(false)
	end(600)
	run()
	if metric("sent") != 600 {
		t.Errorf("%v sent", metric("sent"))
	}
	if log := out.String(); strings.Count(log, "level=WARN") != 1 || strings.Count(log, "takes spans again") != 1 || strings.Count(log, "\n") != 2 || len(log) > 1000 {
		t.Errorf("log: %s", log)
	}
}

// TestOptions: what New refuses.
func TestOptions(t *testing.T) {
	t.Parallel()
	for _, o := range []trace.Options{{}, {Endpoint: "http://127.0.0.1:1"}, {Share: 0.5}, {Endpoint: "http://127.0.0.1:1", Share: 1.5}, {Endpoint: "http://[", Share: 1}} {
		if _, err := trace.New(o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}
