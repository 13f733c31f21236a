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
)

// TestThinRoster: a relay that has just started names no hosts. The hosts of known accounts are
// listed all the same, and the relay is asked again soon, not in a day, after a restart too.
func TestThinRoster(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 3, Repos: 30, RecordsMedian: 2}})
	dids := w.Net.DIDs()
	known := w.Net.Account(dids[0])
	w.Filter(filter.Config{Mode: filter.ModeFull})
	w.Add(known.DID()) // known from the firehose
	w.Settle(known.DID())
	w.Stop()
	var names atomic.Bool
	relay := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !names.Load() {
			fmt.Fprint(rw, `{"hosts":[]}`)
			return
		}
		var hosts []string
		for _, h := range w.Net.Hosts() {
			hosts = append(hosts, fmt.Sprintf(`{"hostname":%q,"status":"active"}`, strings.TrimPrefix(h.URL(), "http://")))
		}
		fmt.Fprintf(rw, `{"hosts":[%s]}`, strings.Join(hosts, ","))
	}))
	t.Cleanup(relay.Close)
	options := discover.Options{Crawl: []discover.Source{{Kind: discover.SourceHosts, URL: relay.URL, Implied: true}}}
	w.start(options)
	beside := 0
	for _, a := range w.Net.Accounts() {
		if a.Host() == known.Host() {
			beside++
		}
	}
	w.Until("those of the host that is known", func() bool { return w.Store.Counts()["synced"] == int64(beside) })
	w.Until("the end of the pass", func() bool { return w.ended(options.Crawl[0].String()) })
	names.Store(true)
	w.Stop()
	w.Clock.Advance(time.Minute)
	w.start(options)
	w.Until("all", func() bool { return w.Store.Counts()["synced"] == int64(len(dids)) })
}
