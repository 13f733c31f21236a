package backfill_test

import (
	"testing"
	"time"

	"cistern/backfill"
	"cistern/filter"
	"cistern/ingest/simnet"

	"github.com/prometheus/client_golang/prometheus"
)

// TestStopCrawlBlocksNobody: whoever holds the lock of a repository may wake us, while a source that is being stopped waits for
// just that lock.
func TestStopCrawlBlocksNobody(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]func(*backfill.Runner, backfill.Source) error{
		"remove": (*backfill.Runner).RemoveCrawl,
		"add":    (*backfill.Runner).AddCrawl, // in the place of the one that is implied
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1, RecordsMedian: 2}})
			did := w.net.DIDs()[0]
			list, reg := newList(t), prometheus.NewRegistry()
			list.entries = []string{active(did, "")}
			w.filter(filter.Config{Mode: filter.ModeFull})
			w.stop()
			unlock := w.store.Lock(did)
			source := backfill.Source{Kind: backfill.SourceRepos, URL: list.URL, Implied: true}
			w.start(backfill.Options{Crawl: []backfill.Source{source}, CrawlEvery: time.Hour, Registerer: reg})
			w.until("its page to be read", func() bool { return counted(t, reg, "pages_total", "") > 0 })
			stopped, woken := make(chan error, 1), make(chan bool)
			go func() { stopped <- stop(w.run, source) }()
			w.until("it to be stopped", func() bool { return backfill.StoppingCrawl(w.run) })
			go func() {
				w.run.Wake()
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
