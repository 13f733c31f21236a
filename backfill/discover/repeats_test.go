package discover_test

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"cistern/backfill/discover"
	"cistern/ingest/simnet"
	"cistern/store/storetest"
)

// TestRepeats: a listing that repeats itself is detected before it was read four times, in whatever
// order it names accounts and however its pages are cut; a listing that names each account once, or
// some of them twice, is accepted.
func TestRepeats(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	name := func(i int) string { return storetest.DID(i) }
	for _, c := range []struct {
		what     string
		page     int                    // entries of a page
		accounts int                    // of the list
		entry    func(i int) int        // the entry at an index
		most     func(accounts int) int // entries read before detection; 0: never detected
	}{
		{what: "in order", page: 50, accounts: 1 << 20, entry: func(i int) int { return i }},
		{what: "every page begins with the last account of the page before", page: 10, accounts: 1 << 20, entry: func(i int) int { return i - i/10 }},
		{what: "a circle", page: 7, accounts: 500, entry: func(i int) int { return i % 500 }, most: func(n int) int { return 4 * n }},
		{what: "a circle of one page", page: 10, accounts: 10, entry: func(i int) int { return i % 10 }, most: func(n int) int { return 4 * n }},
		{what: "one account for ever", page: 1, accounts: 1, entry: func(int) int { return 0 }, most: func(int) int { return 10 }},
		{what: "pages of one", page: 1, accounts: 100, entry: func(i int) int { return i % 100 }, most: func(n int) int { return 8 * n }},
		{what: "accounts by chance", page: 20, accounts: 1000, entry: func(int) int { return random.IntN(1000) }, most: func(n int) int { return 8 * n }},
	} {
		watch, read := discover.NewRepeats(), 0
		for page := 0; page < 5000; page++ {
			var names []string
			for range c.page {
				names = append(names, name(c.entry(read)))
				read++
			}
			if watch(fmt.Sprint(page), names) {
				if c.most == nil {
					t.Errorf("%s: said to repeat itself after %d entries", c.what, read)
				} else if read > c.most(c.accounts) {
					t.Errorf("%s: noticed after %d entries of %d accounts", c.what, read, c.accounts)
				}
				read = -1
				break
			}
		}
		if c.most != nil && read != -1 {
			t.Errorf("%s: not noticed", c.what)
		}
	}
}

// TestListsEnd: a listing whose cursors are always new and whose accounts are always the same is
// not read for ever, neither by discovery nor after a gap, and the log states why.
func TestListsEnd(t *testing.T) {
	t.Parallel()
	var log safeBuffer
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 8, RecordsMedian: 2},
		crawl: discover.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}})
	dids := w.net.DIDs()
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
	w.until("the end", func() bool { return w.ended(s.String()) })
	if n := pages.Load(); n > 4*8/2 {
		t.Errorf("%d pages were read of four", n)
	}
	if c := w.crawls(); !strings.Contains(c.Failure, "repeats itself") {
		t.Errorf("status %+v", c)
	}
	pages.Store(0)
	w.gap(source.URL)
	w.until("the pass to end", func() bool { return len(w.passes()) == 0 })
	if n := pages.Load(); n > 4*8/2 {
		t.Errorf("%d pages were read of four after a gap", n)
	}
	if n := strings.Count(log.String(), "it repeats itself"); n != 2 {
		t.Errorf("log %s", log.String())
	}
	w.settle(dids...)
	for _, did := range dids {
		w.equal(did)
	}
}
