package discover_test

import (
	"strings"
	"testing"

	"cistern/backfill/discover"
	"cistern/filter"
	"cistern/ingest/simnet"
	"cistern/store"
)

// TestBanLiftedFromList: the list of a banned host is not read until the ban is lifted, and then at
// once.
func TestBanLiftedFromList(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 2, Repos: 8, RecordsMedian: 3}})
	w.Filter(filter.Config{Mode: filter.ModeFull})
	w.Stop()
	h := w.Net.Host(0)
	set := func(banned bool) uint32 {
		id, err := w.Store.SetHost(strings.TrimPrefix(h.URL(), "http://"), func(row *store.HostRow) { row.Banned = banned })
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	set(true)
	w.start(discover.Options{Crawl: []discover.Source{{Kind: discover.SourceHosts, URL: w.Net.Relay()}}})
	w.Until("the other host's repositories", func() bool { return w.Store.Counts()["synced"] == 4 && w.crawls().Failing == 1 })
	if n := len(h.Log().Requests); n != 0 {
		t.Errorf("the banned host was asked %d kinds of questions", n)
	}
	w.hostChanged(set(false))
	w.Until("all", func() bool { return w.Store.Counts()["synced"] == 8 })
}
