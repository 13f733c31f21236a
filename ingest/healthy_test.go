package ingest_test

import (
	"context"
	"testing"
	"time"

	"cistern/ingest"
	"cistern/store"

	"github.com/prometheus/client_golang/prometheus"
)

// TestFirstAppliedEventEndsTheFailure of a source: what happens to its connection afterwards is a
// first failure again, whose retry does not wait for as long as the retries before.
func TestFirstAppliedEventEndsTheFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.net.Accounts()[0]
	w.hold(a)
	w.skip()
	if _, err := a.Put("com.example.thing/new", map[string]any{"$type": "com.example.thing"}); err != nil {
		t.Fatal(err)
	}
	const failures = 5
	h := newFirehose(t, func(n int, c *client) {
		switch {
		case n < failures: // and hangs up
		case n == failures:
			c.send(w.net.RelayHost().Messages(w.sent)...)
			c.stay()
		}
	})
	r := w.read(h.URL)
	status := func() ingest.SourceStatus { return r.Sources()[0] }
	w.until("failures", func() bool { return len(h.asked()) > failures })
	w.until("the event to be applied", func() bool { return w.row(a).Rev == a.Truth().Rev })
	w.until("no failures", func() bool { return status().Failures == 0 && status().Running })
	if st := status(); st.Events != 1 || st.LastFailure.Kind != "closed" {
		t.Errorf("status %+v", st)
	}
}

// read runs a Runner on the world's store that reads a relay, in place of the one that is fed by
// hand.
func (w *world) read(url string) *ingest.Runner {
	w.t.Helper()
	w.stop()
	o := w.opts
	o.Registerer = prometheus.NewRegistry()
	o.AllowPrivate, o.RetryBase, o.RetryMax = true, time.Millisecond, 20*time.Millisecond
	o.Sources = []store.Source{{URL: url}}
	r, err := ingest.New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	})
	return r
}
