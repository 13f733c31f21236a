package discover_test

import (
	"testing"
	"time"

	"cistern/backfill/backfilltest"
	"cistern/backfill/discover"
	"cistern/ingest/simnet"
	"cistern/store"
)

// TestCrawlPause: crawlers request nothing during a pause, and fetches continue.
func TestCrawlPause(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 5, RecordsMedian: 5}})
	w.Stop()
	source := discover.Source{Kind: discover.SourceRepos, URL: w.Net.Relay()}
	pages := func() int { return w.Net.RelayHost().Log().Requests["com.atproto.sync.listRepos"] }
	w.start(discover.Options{Crawl: []discover.Source{source}})
	w.Until("all repositories", func() bool { return w.Store.Counts()["synced"] == 5 })
	w.crawlGate.Shut(backfilltest.Pausing)
	before := pages()
	late := w.Net.AddAccount(w.Net.Host(0)).DID()
	w.Clock.Advance(25 * time.Hour)
	w.Wake()
	w.Add(w.Net.DIDs()[0])
	w.Settle(w.Net.DIDs()[0])
	if _, err := w.Store.Repo(late); err == nil || pages() != before {
		t.Error("a page was asked for during a pause")
	}
	w.crawlGate.Open(backfilltest.Pausing.Name)
	w.Wake()
	w.Until("the new account", func() bool { r, err := w.Store.Repo(late); return err == nil && r.State == store.StateSynced })
}
