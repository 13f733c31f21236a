package ingest_test

import (
	"context"
	"testing"
	"time"

	"cistern/filter"
	"cistern/ingest/simnet"
	"cistern/store"

	"github.com/prometheus/client_golang/prometheus"
)

// connect has a Runner follow the relay through a socket, from now on, in place of the one that is
// fed by hand.
func (w *world) connect() {
	w.t.Helper()
	w.stop()
	w.reg = prometheus.NewRegistry()
	w.opts.Registerer = w.reg
	w.hose.AllowPrivate, w.hose.RetryBase = true, time.Millisecond
	w.hose.Sources = []store.Source{{URL: w.net.RelayHost().URL()}}
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
	w.connected(w.net.RelayHost())
}

// TestUndecodableCommit: a commit that cannot be decoded names its repository all the same, which
// is fetched then.
func TestUndecodableCommit(t *testing.T) {
	t.Parallel()
	for _, kind := range []simnet.StreamFaultKind{simnet.StreamManyOps, simnet.StreamOversized} {
		for _, c := range []struct {
			name  string
			begin func(w *world, a *simnet.Account)
			check func(w *world, row store.Repo) bool
		}{
			{"synced", func(w *world, a *simnet.Account) { w.hold(a) }, func(w *world, row store.Repo) bool {
				return row.State == store.StatePending && row.Recheck && w.count("rejected_total", "frame") == 1
			}},
			{"being fetched", func(w *world, a *simnet.Account) {
				set(w, a, func(r *store.Repo) { r.State, r.Tracked = store.StatePending, store.ByOperator })
				w.begin(a)
			}, func(w *world, row store.Repo) bool {
				return row.State == store.StatePending && w.store.Buffered(row.DID) == 0
			}},
			{"unknown", func(w *world, _ *simnet.Account) { w.follow(filter.ModeFull) }, func(_ *world, row store.Repo) bool {
				return row.State == store.StatePending && row.Tracked == store.ByNetwork
			}},
		} {
			t.Run(kind.String()+", "+c.name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				a := w.net.Accounts()[0]
				c.begin(w, a)
				w.connect()
				w.net.RelayHost().InjectStream(simnet.StreamFault{Kind: kind, DID: a.DID(), Count: 1})
				commit := w.put(a, "app.test.x/one", "1")
				w.until("the row knows of it", func() bool {
					row, err := w.store.RepoOrNew(a.DID())
					return err == nil && row.SeenRev == commit.Rev
				})
				if row := w.row(a); !c.check(w, row) {
					t.Errorf("row %+v", row)
				}
				if src := w.sources.Status()[0]; src.BadFrames != 1 || src.Failures != 0 {
					t.Errorf("source %+v", src)
				}
			})
		}
	}
}
