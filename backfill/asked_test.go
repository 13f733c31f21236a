package backfill_test

import (
	"net/http"
	"testing"

	"cistern/ingest/simnet"
	"cistern/store"
)

// TestAskedDuringFetch: a request to fetch a repository again is not satisfied by a fetch that was
// under way, however that fetch ends. Another fetch begins after it, and gets what was written
// before the request.
func TestAskedDuringFetch(t *testing.T) {
	t.Parallel()
	const latest = "com.atproto.sync.getLatestCommit"
	for name, c := range map[string]struct {
		held    bool // before
		recheck bool // the fetch asks for the rev only
		raised  bool // the request is one to follow the repository, which was found before
		fault   simnet.Fault
	}{
		"first copy":   {fault: simnet.Fault{Kind: simnet.Gate}}, // sends the state from before the hook
		"another copy": {held: true, fault: simnet.Fault{Kind: simnet.Gate}},
		"same rev":     {held: true, recheck: true, fault: simnet.Fault{Kind: simnet.Latency, Endpoint: latest}},
		"by name":      {held: true, raised: true, fault: simnet.Fault{Kind: simnet.Gate}},
		"it fails":     {held: true, fault: simnet.Fault{Kind: simnet.ServerError, Status: http.StatusInternalServerError}},
		"gone":         {held: true, fault: simnet.Fault{Kind: simnet.Unavailable, Account: simnet.Deactivated}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1, RecordsMedian: 5}})
			did, host := w.Net.DIDs()[0], w.Net.Host(0)
			if c.held {
				w.Add(did)
				w.Settle(did)
			}
			before := 0
			c.fault.Count, c.fault.Hook = 1, func() {
				if !c.recheck {
					if _, err := w.Net.Account(did).Mutate(3); err != nil {
						t.Error(err)
					}
				}
				before = len(host.Log().Fetches[did])
				w.Change(did, func(r *store.Repo) {
					r.Asked++ // as POST /repos/resync does
					if c.raised {
						r.Asked, r.Pending.Priority = r.Asked-1, store.PriorityOperator // as PUT /repos does
					}
				})
			}
			host.Inject(c.fault)
			w.Change(did, func(r *store.Repo) {
				r.State, r.Tracked, r.Recheck = store.StatePending, store.ByOperator, c.recheck
				r.Pending = store.PendingKey{Host: r.Pending.Host, Priority: store.PriorityRetry}
				r.Attempt++
			})
			w.Run.Wake()
			w.Settle(did)
			w.Equal(did)
			if n := len(host.Log().Fetches[did]) - before; n != 1 {
				t.Errorf("%d fetches began after the request", n)
			}
		})
	}
}
