package discover_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"cistern/backfill/discover"
	"cistern/filter"
	"cistern/ingest/simnet"
	"cistern/store"
)

// TestListedInactive: a host lists unknown accounts of other hosts as inactive: because it lies,
// because it is a relay that took them down, or because they moved away. They have no status before
// their own host was asked; the status that it reports for its own inactive accounts is stored.
func TestListedInactive(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{discover.SourceHosts, discover.SourceRepos} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 2, Repos: 8, RecordsMedian: 3}})
			dids := w.Net.DIDs()
			out, moved := dids[6], w.Net.Account(dids[7])
			w.Net.Account(out).SetStatus(simnet.Deactivated)
			moved.Migrate(w.Net.Host(0))
			moved.Migrate(w.Net.Host(1))
			moved.Migrate(w.Net.Host(0)) // inactive at one of the two hosts, whichever is read first
			w.Filter(filter.Config{Mode: filter.ModeFull})
			liar := newList(t)
			for i, did := range dids {
				liar.entries = append(liar.entries, inactive(did, []string{"deleted", "deactivated", "takendown", "nonsense"}[i%4]))
			}
			relay := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				var names []string
				for _, url := range []string{liar.URL, w.Net.Host(0).URL(), w.Net.Host(1).URL()} {
					names = append(names, fmt.Sprintf(`{"hostname":%q,"status":"active"}`, strings.TrimPrefix(url, "http://")))
				}
				fmt.Fprintf(rw, `{"hosts":[%s]}`, strings.Join(names, ","))
			}))
			t.Cleanup(relay.Close)
			w.Stop()
			url, unlisted := relay.URL, []string(nil)
			// Only the liar is read, and accounts that it lists as deleted are not checked.
			if kind == discover.SourceRepos {
				url, unlisted = liar.URL, []string{dids[0], dids[4]}
			}
			w.start(discover.Options{Crawl: []discover.Source{{Kind: kind, URL: url}}})
			w.Until("all to be known", func() bool { return w.Store.Counts()["repos"] == int64(len(dids)-len(unlisted)) })
			w.Until("all to be asked for", func() bool { return w.Store.Counts()["pending"] == 0 })
			for _, did := range dids {
				switch {
				case slices.Contains(unlisted, did):
					continue
				case did == out:
					if r := w.Row(did); r.State != store.StateGone || r.Status != store.StatusDeactivated {
						t.Errorf("inactive: %+v", r)
					}
				default:
					w.Settle(did)
					w.Equal(did)
					if got := w.Accounts(did, 1); len(got) > 0 {
						t.Errorf("%s was told to be %v", did, got)
					}
				}
			}
		})
	}
}
