package backfill_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/filter"
	"cistern/ingest/simnet"
	"cistern/store/storetest"
)

// TestCrawlShare: a host that lists accounts without end does not use up what may be pending, so that the others are still read.
func TestCrawlShare(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 4, RecordsMedian: 3}})
	w.filter(filter.Config{Mode: filter.ModeFull})
	w.stop()
	liar, honest := newList(t), newList(t)
	for i := range 200 {
		liar.entries = append(liar.entries, active(storetest.DID(i), ""))
	}
	for _, did := range w.net.DIDs() {
		honest.entries = append(honest.entries, active(did, ""))
	}
	relay := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		host, next := liar, "honest"
		if r.URL.Query().Get("cursor") != "" {
			for before := int64(-1); before < w.store.Counts()["pending"]; time.Sleep(500 * time.Millisecond) {
				before = w.store.Counts()["pending"] // until the other has had what it gets
			}
			host, next = honest, ""
		}
		fmt.Fprintf(rw, `{"cursor":%q,"hosts":[{"hostname":%q,"status":"active"}]}`, next, strings.TrimPrefix(host.URL, "http://"))
	}))
	t.Cleanup(relay.Close)
	w.start(backfill.Options{Crawl: []backfill.Source{{Kind: backfill.SourceHosts, URL: relay.URL}}, CrawlPendingMax: 40})
	w.run.SetPaused(true)
	w.until("the honest ones", func() bool {
		for _, did := range w.net.DIDs() {
			if row, err := w.store.RepoOrNew(did); err != nil || !row.Known() {
				return false
			}
		}
		return true
	})
}
