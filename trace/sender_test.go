package trace_test

import (
	"bytes"
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"cistern/trace"

	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// slow is an exporter whose calls wait until they are released, or their context ends.
type slow struct {
	calls   chan int // gets the number of spans of each call
	release chan struct{}
}

func (s *slow) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	s.calls <- len(spans)
	select {
	case <-s.release:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *slow) Shutdown(context.Context) error { return nil }

// TestStopWhileSending stops a daemon while a batch is on its way. The batch and what waits behind it
// arrive if the collector takes them within three seconds, and the log is silent. If it does not, the
// stop takes no longer, the spans are counted, and the log says that they are lost.
func TestStopWhileSending(t *testing.T) {
	for name, c := range map[string]struct {
		takes bool
		sent  float64
		lost  float64
		warns int
		took  time.Duration
	}{
		"the collector is slow": {true, 700, 0, 0, time.Second},
		"the collector hangs":   {false, 0, 700, 2, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				tr, _, metric := newTracer(t, trace.Options{Endpoint: "http://127.0.0.1:1", Share: 1, Logger: slog.New(slog.NewTextHandler(&out, nil))})
				s := &slow{calls: make(chan int, 10), release: make(chan struct{})}
				tr.SetExporter(s)
				spans := func(n int) {
					for range n {
						p := tr.Begin("fetch", time.Time{})
						p.End()
					}
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				ended := make(chan error)
				go func() { ended <- tr.Run(ctx) }()
				spans(100)
				if n := <-s.calls; n != 100 { // the first batch is on its way
					t.Fatalf("%d spans are sent", n)
				}
				spans(600)
				cancel()
				begun := time.Now()
				synctest.Wait()
				if c.takes {
					time.Sleep(time.Second)
					close(s.release)
				}
				if err := <-ended; err != nil {
					t.Error(err)
				}
				if took := time.Since(begun); took != c.took {
					t.Errorf("the stop takes %s, want %s", took, c.took)
				}
				if lost := metric("failed") + metric("dropped"); metric("sent") != c.sent || lost != c.lost {
					t.Errorf("%v sent, %v failed, %v dropped", metric("sent"), metric("failed"), metric("dropped"))
				}
				if n := bytes.Count(out.Bytes(), []byte("level=WARN")); n != c.warns {
					t.Errorf("log: %s", &out)
				}
			})
		})
	}
}
