package discover_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"cistern/backfill/backfilltest"
	"cistern/backfill/discover"
	"cistern/filter"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"
)

// TestCrawlShare: hosts that list accounts without end, or are dead or banned, do not use up the
// limit of pending repositories, so that the lists of other hosts, and the relay's list of hosts,
// are still read.
func TestCrawlShare(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 2, RecordsMedian: 3}})
	w.Filter(filter.Config{Mode: filter.ModeFull})
	w.Stop()
	const liars = 10
	var names []string
	for i := range liars {
		liar := newList(t)
		for j := range 200 {
			liar.entries = append(liar.entries, active(storetest.DID(1000*i+j), ""))
		}
		names = append(names, fmt.Sprintf(`{"hostname":%q,"status":"active"}`, strings.TrimPrefix(liar.URL, "http://")))
	}
	honest := newList(t)
	for _, did := range w.Net.DIDs() {
		honest.entries = append(honest.entries, active(did, ""))
	}
	asked, answer := make(chan struct{}, 1), make(chan struct{})
	relay := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("cursor") != "" {
			asked <- struct{}{}
			<-answer
			fmt.Fprintf(rw, `{"hosts":[{"hostname":%q,"status":"active"}]}`, strings.TrimPrefix(honest.URL, "http://"))
			return
		}
		fmt.Fprintf(rw, `{"cursor":"honest","hosts":[%s]}`, strings.Join(names, ","))
	}))
	t.Cleanup(relay.Close)
	w.start(discover.Options{Crawl: []discover.Source{{Kind: discover.SourceHosts, URL: relay.URL}}, CrawlPendingMax: 40})
	w.Gate.Shut(backfilltest.Pausing)
	<-asked
	w.lists(1) // the other hosts have their share
	if n := w.Store.Counts()["pending"]; n <= 2*liars {
		t.Errorf("%d are pending before the honest ones are listed", n)
	}
	close(answer)
	w.Until("the honest ones", func() bool { return w.allKnown(w.Net.DIDs()...) })
	if n := w.Store.Counts()["pending"]; n > 40+2*(liars+1) {
		t.Errorf("%d are pending of 40, and a page of two for each host", n)
	}
}

// allKnown reports whether all given repositories are known.
func (w *world) allKnown(dids ...string) bool {
	for _, did := range dids {
		if row, err := w.Store.RepoOrNew(did); err != nil || !row.Known() {
			return false
		}
	}
	return true
}

// TestCrawlBesideOthers: repositories that wait for banned hosts block no list. Repositories that
// the operator requested block the lists of relays, but neither their lists of hosts nor the lists
// of hosts without pending repositories.
func TestCrawlBesideOthers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		kind   string
		banned bool
		read   bool
	}{
		"repositories, banned": {discover.SourceRepos, true, true},
		"repositories, queued": {discover.SourceRepos, false, false},
		"hosts, queued":        {discover.SourceHosts, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 4, RecordsMedian: 3}})
			w.Filter(filter.Config{Mode: filter.ModeFull})
			w.Stop()
			id, err := w.Store.SetHost("other.example", func(row *store.HostRow) { row.Banned = c.banned })
			if err != nil {
				t.Fatal(err)
			}
			for i := range 50 {
				w.Change(storetest.DID(i), func(r *store.Repo) {
					r.State, r.Tracked = store.StatePending, store.ByOperator
					r.Pending = store.PendingKey{Host: id, Priority: store.PriorityOperator}
				})
			}
			w.start(discover.Options{Crawl: []discover.Source{{Kind: c.kind, URL: w.Net.Relay()}}, CrawlPendingMax: 40})
			w.Gate.Shut(backfilltest.Pausing)
			if c.read {
				w.Until("those that are listed", func() bool { return w.allKnown(w.Net.DIDs()...) })
				return
			}
			w.lists(0)
			if n := w.Net.RelayHost().Log().Requests[listRepos]; n != 0 {
				t.Errorf("%d pages were asked for", n)
			}
		})
	}
}
