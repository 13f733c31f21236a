package discover_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"cistern/backfill/discover"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"
)

// TestCrawl lists a relay over several pages, is stopped between pages, resumes, and after an hour
// finds the accounts that were created since.
func TestCrawl(t *testing.T) {
	t.Parallel()
	const repos = 1500
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 3, Repos: repos, RecordsMedian: 1, Empty: 1000}})
	inactive := w.Net.DIDs()[7]
	w.Net.Account(inactive).SetStatus(simnet.Takendown)
	known := w.Net.DIDs()[3]
	w.Know(known) // not followed: discovery must not change that
	source := discover.Source{Kind: discover.SourceRepos, URL: w.Net.Relay()}
	options := discover.Options{Crawl: []discover.Source{source}, CrawlPendingMax: 400, CrawlEvery: time.Hour}
	w.Stop()
	w.start(options)
	w.Until("the first page", func() bool { return w.Store.Counts()["repos"] > 500 })
	w.Stop()
	requests := w.Net.RelayHost().Log().Requests["com.atproto.sync.listRepos"]
	if m := w.mark(source.String()); m.Cursor == "" || requests != 1 {
		t.Fatalf("mark %+v after %d pages", m, requests)
	}
	w.start(options)
	w.Until("all repositories", func() bool { return w.Store.Counts()["synced"] == repos-2 })
	if n := w.Net.RelayHost().Log().Requests["com.atproto.sync.listRepos"]; n != 2 {
		t.Errorf("%d pages were asked for, want 2: the first must not be listed again", n)
	}
	if r := w.Row(known); r.State != store.StateIdle || r.Tracked != store.Untracked {
		t.Errorf("known: %+v", r)
	}
	if _, err := w.Store.Repo(inactive); err == nil {
		t.Error("an inactive account was added")
	}
	w.Equal(w.Net.DIDs()[repos-1])

	// An account that is created later is found an hour later.
	late := w.Net.AddAccount(w.Net.Host(1)).DID()
	w.Wake()
	w.crawlElsewhere()
	if _, err := w.Store.Repo(late); err == nil {
		t.Error("the source was listed again at once")
	}
	w.Clock.Advance(time.Hour)
	w.Wake()
	w.Until("the new account", func() bool { return w.Store.Counts()["synced"] == repos-1 })
	w.Equal(late)
}

// TestCrawlSurvives a source that fails, and one whose cursor never changes.
func TestCrawlSurvives(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 5, RecordsMedian: 3}})
	w.Stop()
	failing := w.Net.RelayHost().Inject(simnet.Fault{Kind: simnet.ServerError, Count: 1})
	garbage := w.Net.RelayHost().Inject(simnet.Fault{Kind: simnet.Garbage, Count: 1})
	w.start(discover.Options{Crawl: []discover.Source{{Kind: discover.SourceRepos, URL: w.Net.Relay()}}})
	w.Until("all repositories", func() bool { return w.Store.Counts()["synced"] == 5 })
	if failing.Fired() != 1 || garbage.Fired() != 1 {
		t.Error("the faults were not met")
	}
	w.crawlElsewhere()
	if n := w.Net.RelayHost().Log().Requests["com.atproto.sync.listRepos"]; n != 3 {
		t.Errorf("%d pages were asked for, want 3", n)
	}
}

// TestCrawlInCircles: a source whose cursors repeat is asked no faster than the rate for pages
// without new accounts.
func TestCrawlInCircles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1, RecordsMedian: 3}})
	w.Stop()
	var pages atomic.Int64
	source := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(rw, `{"cursor":"%d","repos":[{"did":%q}]}`, pages.Add(1)%3, w.Net.DIDs()[0])
	}))
	t.Cleanup(source.Close)
	w.start(discover.Options{Crawl: []discover.Source{{Kind: discover.SourceRepos, URL: source.URL}}})
	w.Until("the account", func() bool { return w.Store.Counts()["synced"] == 1 })
	before, begin := pages.Load(), time.Now()
	ended := func() bool { return w.crawls().Ended > 0 }
	w.Until("five pages more, or the end", func() bool { return ended() || pages.Load() >= before+5 })
	if took := time.Since(begin); !ended() && took < 4*100*time.Millisecond {
		t.Errorf("five pages of nothing new in %s", took)
	}
}

// crawlElsewhere reads another source to its end: by then the present sources have done their
// immediate work.
func (w *world) crawlElsewhere() {
	w.T.Helper()
	l := newList(w.T)
	l.entries = []string{inactive(storetest.DID(1), "deactivated")}
	s := discover.Source{Kind: discover.SourceRepos, URL: l.URL}
	if err := w.crawl.AddCrawl(s); err != nil {
		w.T.Fatal(err)
	}
	w.Until("another source to end", func() bool { return w.ended(s.String()) })
	if err := w.crawl.RemoveCrawl(s); err != nil {
		w.T.Fatal(err)
	}
}
