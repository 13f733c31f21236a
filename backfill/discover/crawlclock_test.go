package discover_test

import (
	"testing"
	"time"

	"cistern/backfill/discover"
	"cistern/filter"
	"cistern/ingest/simnet"
	"cistern/store"
)

// TestCrawlClock: times recorded while the clock was years ahead do not prevent a list from being
// read, or a host from being asked about an account, once the clock is right.
func TestCrawlClock(t *testing.T) {
	t.Parallel()
	const years = 10 * 365 * 24 * time.Hour
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 3, RecordsMedian: 20}})
	dids := w.Net.DIDs()
	w.Filter(filter.Config{Signals: []string{"app.*"}})
	w.Stop()
	l := newList(t)
	l.entries = []string{active(dids[0], "")}
	s := discover.Source{Kind: discover.SourceRepos, URL: l.URL}
	w.Clock.Advance(years)
	w.start(discover.Options{Crawl: []discover.Source{s}})
	w.Until("the end", func() bool { return w.ended(s.String()) && w.Store.Counts()["synced"] == 1 })
	w.Stop()
	l.set(func() { l.entries = append(l.entries, active(dids[1], "")) })
	b := w.Store.NewBatch()
	b.PutDescribeRetry(dids[2], store.DescribeRetry{Due: w.Clock.Now().Unix(), Tries: 3})
	if err := b.CommitSync(); err != nil {
		t.Fatal(err)
	}
	w.Clock.Advance(-years)
	w.start(discover.Options{Crawl: []discover.Source{s}})
	w.Until("all", func() bool { return w.Store.Counts()["synced"] == 3 && w.ended(s.String()) })
}
