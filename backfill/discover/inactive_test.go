package discover_test

import (
	"slices"
	"testing"

	"cistern/backfill/discover"
	"cistern/ingest/simnet"
)

// TestPagesOfInactive: a page without active accounts, or without any account, is not the end of a
// list.
func TestPagesOfInactive(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 6, RecordsMedian: 5}})
	w.stop()
	dids := w.net.DIDs()
	l := newList(t)
	for _, did := range dids[:4] {
		l.entries = append(l.entries, inactive(did, "takendown"))
	}
	l.entries = append(l.entries, "{}", "{}") // entries without an account
	for _, did := range dids[4:] {
		l.entries = append(l.entries, active(did, w.net.Account(did).Truth().Rev))
	}
	w.start(discover.Options{Crawl: []discover.Source{{Kind: discover.SourceRepos, URL: l.URL}}})
	w.until("who is active", func() bool { return w.store.Counts()["synced"] == 2 })
	w.settle(dids[4:]...)
	for _, did := range dids[4:] {
		w.equal(did)
	}
	if got, want := l.asked(), []string{"", "2", "4", "6"}; !slices.Equal(got, want) {
		t.Errorf("pages %q, want %q", got, want)
	}
	if n := w.store.Counts()["repos"]; n != 2 {
		t.Errorf("%d repositories are known, want 2", n)
	}
}
