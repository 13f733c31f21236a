package discover_test

import (
	"testing"
	"time"

	"cistern/backfill/backfilltest"
	"cistern/backfill/discover"
	"cistern/filter"
	"cistern/ingest/simnet"

	"github.com/prometheus/client_golang/prometheus"
)

// TestStopCrawlBlocksNobody: a caller that holds the lock of a repository may call Wake while a
// source is being stopped that waits for the same lock.
func TestStopCrawlBlocksNobody(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func(*discover.Runner, discover.Source) error{
		"remove": (*discover.Runner).RemoveCrawl,
		"add":    (*discover.Runner).AddCrawl, // replaces the implied source
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1, RecordsMedian: 2}})
			did := w.Net.DIDs()[0]
			list, reg := newList(t), prometheus.NewRegistry()
			list.entries = []string{active(did, "")}
			w.Filter(filter.Config{Mode: filter.ModeFull})
			w.Stop()
			unlock := w.Store.Lock(did)
			source := discover.Source{Kind: discover.SourceRepos, URL: list.URL, Implied: true}
			w.start(discover.Options{Crawl: []discover.Source{source}, CrawlEvery: time.Hour, Registerer: reg})
			w.Until("its page to be read", func() bool { return backfilltest.Counted(t, reg, "pages_total", "") > 0 })
			stopped, woken := make(chan error, 1), make(chan bool)
			go func() { stopped <- stop(w.crawl, source) }()
			w.Until("it to be stopped", func() bool { return discover.StoppingCrawl(w.crawl) })
			go func() {
				w.Wake()
				close(woken)
			}()
			select {
			case <-woken:
			case <-time.After(5 * time.Second):
				t.Error("Wake waits for a source that waits for the lock of its caller")
			}
			unlock()
			if err := <-stopped; err != nil {
				t.Error(err)
			}
		})
	}
}
