package discover_test

import (
	"fmt"
	"slices"
	"testing"

	"cistern/backfill/backfilltest"
	"cistern/backfill/discover"
	"cistern/filter"
	"cistern/ingest/simnet"
	"cistern/store"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// TestCrawlCrash clones the file system at many durable steps of passes over hosts, with none, some
// or all of the unsynced writes. In each clone a mark that moved has skipped no account of its
// page, and the next run finds all other accounts.
func TestCrawlCrash(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	const seed = 9
	crashes := backfilltest.NewCrashes(seed, 1, 40)
	w := newWorld(t, worldOptions{
		net:   simnet.Options{Seed: seed, Hosts: 10, Repos: 50, RecordsMedian: 2, QuietEvery: 3},
		store: store.Options{FS: crashes.FS, Step: crashes.Step, SmallBytes: 64 << 20},
	})
	w.Gate.Shut(backfilltest.Pausing)
	out := w.Net.DIDs()[1]
	w.Net.Account(out).SetStatus(simnet.Suspended)
	w.Filter(filter.Config{Mode: filter.ModeFull})
	s := discover.Source{Kind: discover.SourceHosts, URL: w.Net.Relay()}
	if err := w.crawl.AddCrawl(s); err != nil {
		t.Fatal(err)
	}
	w.Until("the pass to end", func() bool { return w.crawls().Ended == 11 })
	w.Stop()
	eachCrash(crashes, w, 5, func(w *world) {
		for _, h := range w.Net.Hosts() {
			if !w.ended(s.String() + "::" + h.URL()) {
				continue
			}
			for _, a := range w.Net.Accounts() {
				if _, err := w.Store.Repo(a.DID()); a.Host() == h && err != nil {
					t.Errorf("the list of %s has ended without %s: %v", h.URL(), a.DID(), err)
				}
			}
		}
		w.start(discover.Options{Crawl: []discover.Source{s}})
		w.Filter(filter.Config{Mode: filter.ModeFull}) // if the crash came before it
		w.Until("all to be synced", func() bool {
			return w.Store.Counts()["synced"] == int64(len(w.Net.Accounts())-1) && w.Store.Counts()["gone"] == 1
		})
	})
}

// TestCrawlRestarts: a pass that is stopped again and again reaches its end, with few repeated
// requests for pages.
func TestCrawlRestarts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 12, RecordsMedian: 2}})
	l := newList(t)
	for _, did := range w.Net.DIDs() {
		l.entries = append(l.entries, active(did, ""))
	}
	w.Stop()
	s := discover.Source{Kind: discover.SourceRepos, URL: l.URL}
	restarts := 0
	for ; !w.ended(s.String()); restarts++ {
		if restarts == 6 {
			t.Fatalf("pages %q", l.asked())
		}
		was := len(l.asked())
		w.start(discover.Options{Crawl: []discover.Source{s}})
		w.Until("a page to be done with", func() bool { return len(l.asked()) > was+1 || w.ended(s.String()) })
		w.Stop()
	}
	asked := l.asked()
	for _, cursor := range []string{"", "2", "4", "6", "8", "10"} {
		if !slices.Contains(asked, cursor) {
			t.Errorf("page %q was left out of %q", cursor, asked)
		}
	}
	if !slices.IsSortedFunc(asked, func(a, b string) int { return cursorOf(a) - cursorOf(b) }) {
		t.Errorf("pages %q went back", asked)
	}
	if n := w.Store.Counts()["repos"]; n != 12 {
		t.Errorf("%d repositories", n)
	}
}

func cursorOf(s string) (n int) {
	fmt.Sscan(s, &n)
	return n
}

// TestCrawlWaitsForLive: a young rev in a list is not believed before the firehose had a moment to
// bring it; an old rev is believed at once.
func TestCrawlWaitsForLive(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 2, RecordsMedian: 3}})
	dids := w.Net.DIDs()
	w.Add(dids...)
	w.Settle(dids...)
	young := syntax.NewTID(w.Clock.Now().UnixMicro(), 0).String()
	l := newList(t)
	l.entries = []string{active(dids[0], young)}
	s := discover.Source{Kind: discover.SourceRepos, URL: l.URL}
	if err := w.crawl.AddCrawl(s); err != nil {
		t.Fatal(err)
	}
	w.Until("the page", func() bool { return len(l.asked()) == 1 })
	was := w.Row(dids[0]).Rev
	w.Change(dids[0], func(r *store.Repo) { r.Rev = young }) // as a live commit does
	w.Until("the pass to end", func() bool { return w.ended(s.String()) })
	if c := w.crawls(); c.Queued != 0 {
		t.Errorf("status %+v", c)
	}
	w.Change(dids[0], func(r *store.Repo) { r.Rev = was })
}
