package discover_test

import (
	"errors"
	"slices"
	"testing"

	"cistern/backfill/discover"
	"cistern/filter"
	"cistern/ingest/simnet"
	"cistern/store"
)

// TestCrawlFilterWhileReading: if a signal is added while the last page of a list is requested, the
// list is read again at once, not when its next pass is due.
func TestCrawlFilterWhileReading(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 4, RecordsMedian: 3}})
	w.Filter(filter.Config{Signals: []string{"com.example.nothing"}})
	w.Stop()
	source := newList(t)
	for _, did := range w.Net.DIDs() {
		source.entries = append(source.entries, active(did, ""))
	}
	hold := make(chan struct{})
	source.hold = hold
	w.start(discover.Options{Crawl: []discover.Source{{Kind: discover.SourceRepos, URL: source.URL}}})
	w.Until("the last page to be asked for", func() bool { return slices.Contains(source.asked(), "2") })
	w.Filter(filter.Config{Signals: []string{"com.example.nothing", "app.*"}})
	w.lists(1) // the source has noticed the filter
	close(hold)
	w.Until("all", func() bool { return w.Store.Counts()["synced"] == 4 })
}

// TestCrawlFilterWhileFailing: the collections of an account are judged again by a signal that was
// added while another account's host delayed their page.
func TestCrawlFilterWhileFailing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 2, Repos: 2, RecordsMedian: 3}})
	dids := w.Net.DIDs()
	sick := w.Net.Account(dids[1]).Host()
	fault := sick.Inject(simnet.Fault{Kind: simnet.ServerError, Endpoint: describe})
	w.Filter(filter.Config{Signals: []string{"com.example.nothing"}})
	w.Stop()
	source := newList(t)
	source.entries = []string{active(dids[0], ""), active(dids[1], "")}
	w.start(discover.Options{Crawl: []discover.Source{{Kind: discover.SourceRepos, URL: source.URL}}})
	w.Until("the page to be held up", func() bool { return w.crawls().Failing == 1 })
	w.Filter(filter.Config{Signals: []string{"com.example.nothing", "app.*"}})
	fault.Clear()
	w.Until("both", func() bool { return w.Store.Counts()["synced"] == 2 })
}

// TestCrawlFilterThereAndBack: repositories that a filter has forgotten are discovered again when
// the previous filter returns, not when the next pass is due.
func TestCrawlFilterThereAndBack(t *testing.T) {
	t.Parallel()
	for name, narrow := range map[string]filter.Config{
		"mode":   {Mode: filter.ModeFilter},
		"signal": {Mode: filter.ModeFilter, Signals: []string{"com.example.nothing"}},
	} {
		w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 4, RecordsMedian: 3}})
		w.Filter(filter.Config{Mode: filter.ModeFull})
		w.Stop()
		w.start(discover.Options{Crawl: []discover.Source{{Kind: discover.SourceRepos, URL: w.Net.Relay(), Implied: true}}})
		w.Until("all", func() bool { return w.Store.Counts()["synced"] == 4 && w.crawls().Ended == 1 })
		w.Filter(narrow)
		w.Until("none", func() bool { return w.Store.Counts()["repos"] == 0 })
		w.Filter(filter.Config{Mode: filter.ModeFull})
		w.Until("all again, in mode full, after a filter by "+name, func() bool { return w.Store.Counts()["synced"] == 4 })
		w.Stop()
	}
}

// TestCrawlFilterThenRestart: a list is read again at once for a signal that was added just before
// a crash, and the list of a collection when its signal returns.
func TestCrawlFilterThenRestart(t *testing.T) {
	t.Parallel()
	for _, kind := range discover.SourceKinds() {
		w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 4, RecordsMedian: 20}})
		with, without := filter.Config{Signals: []string{"app.bsky.feed.post"}}, filter.Config{Signals: []string{"com.example.nothing"}}
		w.Filter(with)
		w.Stop()
		crawl := discover.Options{Crawl: []discover.Source{{Kind: kind, URL: w.Net.Relay()}}}
		w.start(crawl)
		found := func() bool { return w.Store.Counts()["synced"] == 4 && w.crawls().Ended == w.crawls().Lists }
		w.Until(kind+": all", found)
		w.Filter(without)
		w.Until(kind+": none", func() bool { return w.Store.Counts()["repos"] == 0 })
		w.Filter(with)
		w.Until(kind+": all again", func() bool { return w.Store.Counts()["synced"] == 4 })
		w.Filter(without)
		w.Until(kind+": none again", func() bool { return w.Store.Counts()["repos"] == 0 })
		w.Stop()
		w.Filter(with)
		w.start(crawl)
		w.Until(kind+": all after a restart", func() bool { return w.Store.Counts()["synced"] == 4 })
		w.Stop()
	}
}

// TestCrawlByFilterInForce: a page that was judged by a filter causes no repository to be followed
// once another filter is in force, and does not count as read.
func TestCrawlByFilterInForce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}})
	w.Stop()
	w.Filter(filter.Config{Mode: filter.ModeFull})
	old := w.Store.Filter().Version
	w.Filter(filter.Config{Mode: filter.ModeFilter})
	did, page := w.Net.DIDs()[0], listNamed("repos::https://a.test")
	for _, c := range []struct {
		version uint32
		stale   bool
	}{{old, true}, {old + 1, false}} {
		stale, err := discover.Absorb(w.crawl, did, c.version, func(b *store.Batch) {
			b.PutCrawlMark(page, store.CrawlMark{Pages: 1})
		})
		mark := w.mark(page.String())
		if stale != c.stale || err != nil || w.Known(did) == stale || (mark.Pages == 0) != stale {
			t.Errorf("by version %d: stale %v, known %v, mark %+v, %v", c.version, stale, w.Known(did), mark, err)
		}
	}
}

// TestListOfFormerFilter: nothing follows from a list that was read by a filter that is no longer
// in force.
func TestListOfFormerFilter(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}})
	did := w.Net.DIDs()[0]
	former := w.Store.Filter().Version
	w.Filter(filter.Config{Mode: filter.ModeFull})
	if err := discover.FollowListed(w.crawl, former, did); err == nil {
		t.Error("the list of a former filter is taken")
	}
	if _, err := w.Store.Repo(did); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("an account of it is known (%v)", err)
	}
	if err := discover.FollowListed(w.crawl, w.Store.Filter().Version, did); err != nil {
		t.Fatal(err)
	}
	w.Settle(did)
	w.Equal(did)
}
