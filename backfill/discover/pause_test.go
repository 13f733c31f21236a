package discover_test

import (
	"testing"
	"time"

	"cistern/backfill/discover"
	"cistern/ingest/simnet"
	"cistern/store"
)

// TestCrawlPause: crawlers request nothing during a pause, and fetches continue.
func TestCrawlPause(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 5, RecordsMedian: 5}})
	w.stop()
	source := discover.Source{Kind: discover.SourceRepos, URL: w.net.Relay()}
	pages := func() int { return w.net.RelayHost().Log().Requests["com.atproto.sync.listRepos"] }
	w.start(discover.Options{Crawl: []discover.Source{source}})
	w.until("all repositories", func() bool { return w.store.Counts()["synced"] == 5 })
	w.crawlGate.Shut(pausing)
	before := pages()
	late := w.net.AddAccount(w.net.Host(0)).DID()
	w.clock.advance(25 * time.Hour)
	w.wake()
	w.add(w.net.DIDs()[0])
	w.settle(w.net.DIDs()[0])
	if _, err := w.store.Repo(late); err == nil || pages() != before {
		t.Error("a page was asked for during a pause")
	}
	w.crawlGate.Open(pausing.Name)
	w.wake()
	w.until("the new account", func() bool { r, err := w.store.Repo(late); return err == nil && r.State == store.StateSynced })
}
