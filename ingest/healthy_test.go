package ingest_test

import (
	"context"
	"testing"
	"time"

	"cistern/ingest/firehose"
	"cistern/ingest/simnet"
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
	const failures = 5
	w.net.RelayHost().InjectStream(simnet.StreamFault{Kind: simnet.StreamRefused, Count: failures})
	w.read(w.net.RelayHost().URL())
	status := func() firehose.Status { return w.sources.Status()[0] }
	w.until("a connection", func() bool { return status().Running })
	w.connected(w.net.RelayHost())
	if n := status().Failures; n != failures {
		t.Errorf("%d failures, want %d", n, failures)
	}
	w.put(a, "app.test.x/new", "1")
	w.until("the event to be applied", func() bool { return w.row(a).Rev == a.Truth().Rev })
	w.until("no failures", func() bool { return status().Failures == 0 && status().Running })
	if st := status(); st.Events != 1 || st.LastFailure.Kind != "http" {
		t.Errorf("status %+v", st)
	}
}

// read runs a Runner on the world's store that reads a relay, in place of the one that is fed by
// hand.
func (w *world) read(url string) {
	w.t.Helper()
	w.stop()
	w.reg = prometheus.NewRegistry()
	w.opts.Registerer = w.reg
	w.hose.AllowPrivate, w.hose.RetryBase, w.hose.RetryMax = true, time.Millisecond, 20*time.Millisecond
	w.hose.Sources = []store.Source{{URL: url}}
	w.make()
	r := w.r
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	})
}
