package discover_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/backfill/backfilltest"
	"cistern/backfill/discover"
	"cistern/filter"
	"cistern/ingest/identity"
	"cistern/ingest/simnet"
	"cistern/store/storetest"
)

// hanging is a set of hosts that take requests and do not answer. It counts requests where they are
// made: a server learns late that a client has given up.
type hanging struct {
	http.RoundTripper
	names []string

	mu        sync.Mutex
	now, most int // mu guards: requests that hang, at a time
}

func newHanging(t *testing.T, n int) *hanging {
	h := &hanging{RoundTripper: identity.NewTransport(identity.TransportOptions{AllowPrivate: true})}
	stop := make(chan struct{})
	for range n {
		s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-stop:
			case <-r.Context().Done():
			}
		}))
		h.names = append(h.names, strings.TrimPrefix(s.URL, "http://"))
		t.Cleanup(s.Close)
	}
	t.Cleanup(func() { close(stop) })
	return h
}

// RoundTrip makes a request.
func (h *hanging) RoundTrip(r *http.Request) (*http.Response, error) {
	if slices.Contains(h.names, r.URL.Host) {
		h.count(1)
		defer h.count(-1)
	}
	return h.RoundTripper.RoundTrip(r)
}

func (h *hanging) count(by int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now += by
	h.most = max(h.most, h.now)
}

func (h *hanging) hang() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now
}

// stopped stops the runner, and returns the most requests that hung at a time since its last call.
func (h *hanging) stopped(w *world) (most int) {
	w.Stop()
	w.Until("requests to end", func() bool { return h.hang() == 0 })
	h.mu.Lock()
	defer h.mu.Unlock()
	most, h.most = h.most, 0
	return most
}

// TestHangingHosts: hosts that hang hold only a part of the places for lists, so that pages of
// other hosts are read meanwhile. Once they are known to hang they hold fewer, after a restart too;
// likewise after a gap.
func TestHangingHosts(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second of processor time, or some of waiting")
	}
	t.Parallel()
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}})
	w.Filter(filter.Config{Mode: filter.ModeFull})
	h := newHanging(t, 70)
	good := newList(t)
	for i := range 40 {
		good.entries = append(good.entries, inactive(storetest.DID(1000+i), "deleted"))
	}
	var names []string
	for _, name := range append(h.names, strings.TrimPrefix(good.URL, "http://")) {
		names = append(names, fmt.Sprintf(`{"hostname":%q,"status":"active"}`, name))
	}
	relay := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(rw, `{"hosts":[%s]}`, strings.Join(names, ","))
	}))
	t.Cleanup(relay.Close)
	w.Stop()
	w.transport = h
	options := discover.Options{Crawl: []discover.Source{{Kind: discover.SourceHosts, URL: relay.URL}}, CrawlEvery: time.Hour, IdleTimeout: 500 * time.Millisecond}
	w.start(options)
	w.Until("the good list", func() bool { return w.crawls().Ended == 2 })
	w.Until("all hosts to have failed", func() bool { return w.crawls().Failing == 70 })
	if most := h.stopped(w); most > 32+16 {
		t.Errorf("%d of 64 places were held by hosts that hang", most)
	}
	w.Clock.Advance(2 * time.Hour)
	options.IdleTimeout = time.Hour // no request times out while this test runs
	w.start(options)
	w.Until("the good list again", func() bool { return len(good.asked()) == 40 })
	w.Until("some of the others", func() bool { return h.hang() == 16 })
	if most := h.stopped(w); most > 16 {
		t.Errorf("%d of 64 places were held by hosts that are known to hang", most)
	}

	for _, name := range h.names {
		if row, err := w.Store.HostNamed(name); err != nil || row.LastSeen != 0 {
			t.Errorf("%s never answered, and its row says that it did: %+v, %v", name, row.HostRow, err)
		}
	}

	options.Crawl = nil
	w.start(options)
	for _, name := range h.names {
		w.gap("http://" + name)
	}
	w.gap(good.URL)
	w.Until("the good list to be compared", func() bool { return len(w.passes()) == 70 })
	if most := h.stopped(w); most > 16/4 {
		t.Errorf("%d of 16 places were held by hosts that are known to hang", most)
	}
}

// TestFirstRequestIsShort: the first request to a host has a short timeout, so that a new store, to
// which all hosts are new, soon reads the lists of hosts that answer. The next request has the full
// timeout.
func TestFirstRequestIsShort(t *testing.T) {
	t.Parallel()
	const first, second = "no answer within 200ms", "no answer within 1.2s"
	var log backfilltest.Buffer
	w := newWorld(t, worldOptions{net: simnet.Options{Hosts: 1, Repos: 1}})
	w.Filter(filter.Config{Mode: filter.ModeFull})
	good := newList(t)
	good.entries = []string{inactive(storetest.DID(1000), "deleted")}
	slow := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !strings.Contains(log.String(), second) {
			<-r.Context().Done()
			return
		}
		good.serve(rw, r)
	}))
	t.Cleanup(slow.Close)
	relay := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(rw, `{"hosts":[{"hostname":%q,"status":"active"}]}`, strings.TrimPrefix(slow.URL, "http://"))
	}))
	t.Cleanup(relay.Close)
	w.Stop()
	w.start(discover.Options{Crawl: []discover.Source{{Kind: discover.SourceHosts, URL: relay.URL}},
		IdleTimeout: 1200 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	w.Until("the list to be read", func() bool { return w.crawls().Ended == 2 })
	if a, b := strings.Index(log.String(), first), strings.Index(log.String(), second); a < 0 || b < a {
		t.Errorf("the first two requests were not given up after a sixth of the time, and after all of it:\n%s", &log)
	}
}
