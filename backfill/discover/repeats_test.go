package discover_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"cistern/backfill/backfilltest"
	"cistern/backfill/discover"
	"cistern/ingest/simnet"
)

// TestListsEnd: a listing whose cursors are always new and whose accounts are always the same is
// not read for ever, neither by discovery nor after a gap, and the log states why.
func TestListsEnd(t *testing.T) {
	t.Parallel()
	var log backfilltest.Buffer
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 8, RecordsMedian: 2},
		crawl: discover.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}})
	dids := w.Net.DIDs()
	var pages atomic.Int64
	source := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		n := int(pages.Add(1))
		fmt.Fprintf(rw, `{"cursor":"%d","repos":[%s,%s]}`, n, active(dids[2*n%8], ""), active(dids[(2*n+1)%8], ""))
	}))
	t.Cleanup(source.Close)
	s := discover.Source{Kind: discover.SourceRepos, URL: source.URL}
	if err := w.crawl.AddCrawl(s); err != nil {
		t.Fatal(err)
	}
	w.Until("the end", func() bool { return w.ended(s.String()) })
	if n := pages.Load(); n > 4*8/2 {
		t.Errorf("%d pages were read of four", n)
	}
	if c := w.crawls(); !strings.Contains(c.Failure, "repeats itself") {
		t.Errorf("status %+v", c)
	}
	pages.Store(0)
	w.gap(source.URL)
	w.Until("the pass to end", func() bool { return len(w.passes()) == 0 })
	if n := pages.Load(); n > 4*8/2 {
		t.Errorf("%d pages were read of four after a gap", n)
	}
	if n := strings.Count(log.String(), "it repeats itself"); n != 2 {
		t.Errorf("log %s", log.String())
	}
	w.Settle(dids...)
	for _, did := range dids {
		w.Equal(did)
	}
}
