package discover_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"cistern/backfill/discover"
	"cistern/filter"
	"cistern/ingest/simnet"
	"cistern/store/storetest"
)

// TestCrawlOverrun: a host that invents accounts, all unavailable, so that none is pending, is
// listed up to a limit; other hosts are listed all the same.
func TestCrawlOverrun(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 4, RecordsMedian: 3}})
	w.Filter(filter.Config{Mode: filter.ModeFull})
	discover.BoundAccounts(w.crawl, 6)
	liar := newList(t)
	for i := range 50 {
		liar.entries = append(liar.entries, inactive(storetest.DID(1000+i), "deactivated"))
	}
	relay := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(rw, `{"hosts":[{"hostname":%q},{"hostname":%q}]}`, strings.TrimPrefix(liar.URL, "http://"),
			strings.TrimPrefix(w.Net.Host(0).URL(), "http://"))
	}))
	t.Cleanup(relay.Close)
	if err := w.crawl.AddCrawl(discover.Source{Kind: discover.SourceHosts, URL: relay.URL}); err != nil {
		t.Fatal(err)
	}
	w.Until("the honest ones", func() bool { return w.Store.Counts()["synced"] == 4 })
	w.Until("the liar to be left alone", func() bool { return strings.Contains(w.crawls().Failure, "6 accounts of ") })
	if n := w.Store.Counts()["repos"]; n != 6+4 || len(liar.asked()) != 3 {
		t.Errorf("%d accounts are noted, of pages %q", n, liar.asked())
	}
}
