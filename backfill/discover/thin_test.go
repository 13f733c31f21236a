package discover_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cistern/backfill/discover"
	"cistern/filter"
	"cistern/ingest/simnet"
	"cistern/store"
)

// TestThinRoster: a relay that has just started names no hosts. The hosts of known accounts are
// listed all the same, and the relay is asked again soon, not in a day, after a restart too.
func TestThinRoster(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 3, Repos: 30, RecordsMedian: 2}})
	dids := w.net.DIDs()
	known := w.net.Account(dids[0])
	w.filter(filter.Config{Mode: filter.ModeFull})
	w.add(known.DID()) // known from the firehose
	w.settle(known.DID())
	w.stop()
	var names atomic.Bool
	relay := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !names.Load() {
			fmt.Fprint(rw, `{"hosts":[]}`)
			return
		}
		var hosts []string
		for _, h := range w.net.Hosts() {
			hosts = append(hosts, fmt.Sprintf(`{"hostname":%q,"status":"active"}`, strings.TrimPrefix(h.URL(), "http://")))
		}
		fmt.Fprintf(rw, `{"hosts":[%s]}`, strings.Join(hosts, ","))
	}))
	t.Cleanup(relay.Close)
	options := discover.Options{Crawl: []discover.Source{{Kind: discover.SourceHosts, URL: relay.URL, Implied: true}}}
	w.start(options)
	beside := 0
	for _, a := range w.net.Accounts() {
		if a.Host() == known.Host() {
			beside++
		}
	}
	w.until("those of the host that is known", func() bool { return w.store.Counts()["synced"] == int64(beside) })
	w.until("the end of the pass", func() bool { return w.ended(options.Crawl[0].String()) })
	names.Store(true)
	w.stop()
	w.clock.advance(time.Minute)
	w.start(options)
	w.until("all", func() bool { return w.store.Counts()["synced"] == int64(len(dids)) })
}

// TestThinPasses: a list that names nothing, or less than half of its previous entries, is read
// again after a minute, with doubling delays, for hours; then it is believed.
func TestThinPasses(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	now := time.Unix(1_800_000_000, 0)
	var mark store.CrawlMark
	for _, c := range []struct {
		named int64
		again time.Duration
	}{
		// The list shrinks and recovers.
		{100, day}, {51, day}, {25, time.Minute}, {25, 2 * time.Minute}, {26, day},
		{0, time.Minute}, {0, 2 * time.Minute}, {0, 4 * time.Minute}, {0, 8 * time.Minute}, {0, 16 * time.Minute}, {0, 32 * time.Minute},
		{0, 64 * time.Minute}, {0, 128 * time.Minute}, {0, 256 * time.Minute}, {0, day}, {0, day}, {3, day}, {0, time.Minute},
	} {
		var due time.Time
		if mark, due = discover.EndPass(mark, c.named, day, now); !due.Equal(now.Add(c.again)) {
			t.Errorf("a pass of %d is repeated after %v, want %v", c.named, due.Sub(now), c.again)
		}
	}
}
