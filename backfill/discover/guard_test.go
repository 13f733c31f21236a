package discover_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cistern/backfill"
	"cistern/backfill/backfilltest"
	"cistern/backfill/discover"
	"cistern/backfill/hosts"
	"cistern/filter"
	"cistern/ingest/identity"
	"cistern/ingest/simnet"
	"cistern/store"
	"cistern/store/storetest"

	"golang.org/x/sync/errgroup"
)

// lurer is a transport in front of a guarded one. Its host public.dev redirects each request to the
// address in the DID of the request, or else in its own name.
type lurer struct{ next http.RoundTripper }

func (l lurer) RoundTrip(req *http.Request) (*http.Response, error) {
	name, ok := strings.CutSuffix(req.URL.Host, ".public.dev")
	if !ok {
		return l.next.RoundTrip(req)
	}
	w := httptest.NewRecorder()
	http.Redirect(w, req, "https://"+name+".private.dev/", http.StatusFound)
	resp := w.Result()
	resp.Request = req
	return resp, nil
}

// TestEveryHostIsGuarded: no request goes to a private address, whether a document names it as a
// PDS, a crawled or compared host has it, or one of them redirects to it.
func TestEveryHostIsGuarded(t *testing.T) {
	t.Parallel()
	var reached atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ConnState = func(net.Conn, http.ConnState) { reached.Add(1) }
	server.Start()
	defer server.Close()
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())

	names := map[string]netip.Addr{}
	idents := backfilltest.Directory{}
	var origins []string
	for i, addr := range simnet.Private() {
		name := fmt.Sprintf("n%d", i)
		names[name+".private.dev"] = addr
		origins = append(origins, "http://"+netip.AddrPortFrom(addr, 1).String(), "http://"+net.JoinHostPort(addr.String(), port),
			"http://"+name+".private.dev:"+port, "https://"+name+".private.dev", "https://"+name+".public.dev")
	}
	resolver := simnet.Resolver(func(name string) []netip.Addr {
		if addr, ok := names[name]; ok {
			return []netip.Addr{addr}
		}
		return nil
	})
	var log backfilltest.Buffer
	s := storetest.Open(t, store.Options{})
	o := discover.Options{Store: s, Directory: idents, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	batch := s.NewBatch()
	for i, origin := range origins {
		origin, err := identity.ParseOrigin(origin)
		if err != nil {
			t.Fatal(err)
		}
		did := storetest.DID(i)
		idents[did] = identity.Identity{DID: did, PDS: origin}
		batch.PutRepo(&store.Repo{DID: did, State: store.StatePending, Tracked: store.ByOperator})
		o.Crawl = append(o.Crawl, discover.Source{Kind: discover.SourceRepos, URL: origin})
		if i < 10 { // as many as are compared at a time
			batch.PutReconciliation(origin, store.Reconciliation{})
		}
	}
	if err := batch.CommitSync(); err != nil {
		t.Fatal(err)
	}
	r, err := backfill.New(backfill.Options{
		Store: s, Directory: idents, Logger: o.Logger, PerHost: 2,
		Transport: lurer{identity.NewTransport(identity.TransportOptions{Resolver: resolver})},
	})
	if err != nil {
		t.Fatal(err)
	}
	o.Hosts, o.Enqueued = r.Hosts(), r.Enqueued
	crawl, err := discover.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return r.Run(ctx) })
	g.Go(func() error { return crawl.Run(ctx) })
	defer func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		if n := reached.Load(); n != 0 {
			t.Errorf("somebody here was called %d times", n)
		}
	}()
	missing := func() (missing []string) {
		text := log.String()
		for i, origin := range origins {
			row, err := s.Repo(storetest.DID(i))
			if err != nil {
				t.Fatal(err)
			}
			if row.State != store.StateResync {
				missing = append(missing, "fetch from "+origin)
			} else if e := row.Retry.Error; !strings.Contains(e, "address is not public") && !strings.Contains(e, "address family") {
				t.Errorf("fetch from %s: %s", origin, e)
			}
			if !strings.Contains(text, "source=repos::"+idents[storetest.DID(i)].PDS+" ") && !strings.Contains(text, `source="repos::`+idents[storetest.DID(i)].PDS+`" `) {
				missing = append(missing, "crawl of "+origin)
			}
		}
		if n := strings.Count(text, "reconciliation is held up"); n < 10 {
			missing = append(missing, fmt.Sprintf("%d reconciliations", n))
		}
		return missing
	}
	for deadline := time.Now().Add(30 * time.Second); len(missing()) > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not tried: %q", missing())
		}
	}
	for line := range strings.Lines(log.String()) {
		if (strings.Contains(line, "crawl failed") || strings.Contains(line, "held up")) && !strings.Contains(line, "address is not public") &&
			!strings.Contains(line, "address family") {
			t.Error(line)
		}
	}
}

// TestRosterKeepsTLS: hosts that a relay names over TLS are asked over TLS, and names that are no
// hosts are ignored.
func TestRosterKeepsTLS(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	asked := map[string]bool{}
	network := roundTrip(func(req *http.Request) (*http.Response, error) {
		mu.Lock()
		asked[req.URL.Scheme+"://"+req.URL.Host] = true
		mu.Unlock()
		w := httptest.NewRecorder()
		if strings.HasSuffix(req.URL.Path, ".listHosts") {
			_, _ = w.WriteString(`{"hosts":[{"hostname":"b.dev"},{"hostname":"http://plain.dev"},{"hostname":"ws://plain.dev"},{"hostname":"ftp://x.dev"},
				{"hostname":"u:p@user.dev"},{"hostname":"path.dev/x"},{"hostname":"a b.dev"},{"hostname":""},{"hostname":"127.1"},
				{"hostname":"https://A.dev:443."},{"hostname":"https://A.dev.:443"},{"hostname":"a.dev"},{"hostname":"wss://a.DEV"}]}`)
		} else {
			_, _ = w.WriteString(`{"repos":[]}`)
		}
		resp := w.Result()
		resp.Request = req
		return resp, nil
	})
	s := storetest.Open(t, store.Options{})
	table, err := hosts.New(hosts.Options{Store: s, Transport: network})
	if err != nil {
		t.Fatal(err)
	}
	r, err := discover.New(discover.Options{Store: s, Hosts: table, Directory: backfilltest.Directory{}, Enqueued: func() {},
		Crawl: []discover.Source{{Kind: discover.SourceHosts, URL: "https://relay.dev"}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.SetFilter(filter.Config{Mode: filter.ModeFull}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return r.Run(ctx) })
	defer func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	}()
	for deadline := time.Now().Add(20 * time.Second); r.Crawls()[0].PassEnded.IsZero(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", r.Crawls())
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if want := map[string]bool{"https://relay.dev": true, "https://a.dev": true, "https://b.dev": true}; !maps.Equal(asked, want) {
		t.Errorf("asked %v, want %v", asked, want)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
