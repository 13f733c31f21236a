package discover_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"

	"cistern/backfill/discover"
	"cistern/filter"
	"cistern/ingest/simnet"
)

// TestPagesOfInactive: a page without active accounts, or without any account, is not the end of a
// list.
func TestPagesOfInactive(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 6, RecordsMedian: 5}})
	w.Stop()
	dids := w.Net.DIDs()
	l := newList(t)
	for _, did := range dids[:4] {
		l.entries = append(l.entries, inactive(did, "takendown"))
	}
	l.entries = append(l.entries, "{}", "{}") // entries without an account
	for _, did := range dids[4:] {
		l.entries = append(l.entries, active(did, w.Net.Account(did).Truth().Rev))
	}
	w.start(discover.Options{Crawl: []discover.Source{{Kind: discover.SourceRepos, URL: l.URL}}})
	w.Until("who is active", func() bool { return w.Store.Counts()["synced"] == 2 })
	w.Settle(dids[4:]...)
	for _, did := range dids[4:] {
		w.Equal(did)
	}
	if got, want := l.asked(), []string{"", "2", "4", "6"}; !slices.Equal(got, want) {
		t.Errorf("pages %q, want %q", got, want)
	}
	if n := w.Store.Counts()["repos"]; n != 2 {
		t.Errorf("%d repositories are known, want 2", n)
	}
}

// TestEmptyPagesBeforeFilter: ten empty pages in a row end a list, but those of a pass that began
// again by a new filter do not count.
func TestEmptyPagesBeforeFilter(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1, RecordsMedian: 3}})
	did := w.Net.DIDs()[0]
	w.Filter(filter.Config{Signals: []string{"com.example.nothing"}})
	w.Stop()
	var once sync.Once
	source := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Query().Get("cursor"))
		if n == 6 {
			once.Do(func() { w.Filter(filter.Config{Signals: []string{"com.example.nothing", "app.*"}}) })
		}
		if n < 7 {
			fmt.Fprintf(rw, `{"cursor":"%d","repos":[]}`, n+1)
			return
		}
		fmt.Fprintf(rw, `{"repos":[%s]}`, active(did, ""))
	}))
	t.Cleanup(source.Close)
	w.start(discover.Options{Crawl: []discover.Source{{Kind: discover.SourceRepos, URL: source.URL}}})
	w.Until("the account on the page after them", func() bool { return w.Store.Counts()["synced"] == 1 })
	w.Settle(did)
	w.Equal(did)
}
