package firehose_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cistern/ingest/firehose"
	"cistern/ingest/simnet"
	"cistern/store"

	"github.com/prometheus/client_golang/prometheus"
)

// TestSourcesAreGuarded: no source makes us connect to an address that is not public, whether it is
// named by number, or by a name that resolves to it, or by a name that does so since it was
// checked; nor does one that was added while running.
func TestSourcesAreGuarded(t *testing.T) {
	t.Parallel()
	var reached atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ConnState = func(net.Conn, http.ConnState) { reached.Add(1) }
	server.Start()
	defer server.Close()
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())

	names, hosts := map[string]netip.Addr{}, []string(nil)
	for i, addr := range simnet.Private() {
		name := fmt.Sprintf("n%d.private.dev", i)
		names[name] = addr
		hosts = append(hosts, net.JoinHostPort(addr.String(), port), name+":"+port)
	}
	var looked atomic.Bool
	resolver := simnet.Resolver(func(name string) []netip.Addr {
		if name == "turncoat.private.dev" {
			if !looked.Load() {
				return []netip.Addr{netip.MustParseAddr("1.1.1.1")}
			}
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}
		}
		if addr, ok := names[name]; ok {
			return []netip.Addr{addr}
		}
		return nil
	})
	if addrs, err := resolver.LookupNetIP(t.Context(), "ip", "turncoat.private.dev"); err != nil || addrs[0].String() != "1.1.1.1" {
		t.Fatal(addrs, err)
	}
	looked.Store(true)
	hosts = append(hosts, "turncoat.private.dev:"+port)
	s := newStage(t, func(o *firehose.Options) {
		o.AllowPrivate, o.Resolver = false, resolver
		for _, host := range hosts {
			o.Sources = append(o.Sources, store.Source{URL: "ws://" + host, PDS: true})
		}
	})
	s.run()
	if err := s.r.Add(store.Source{URL: "https://localhost:" + port}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		waiting := 0
		for _, st := range s.r.Status() {
			if st.Failures == 0 {
				waiting++
			}
		}
		if waiting == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d sources have not failed", waiting)
		}
	}
	for _, st := range s.r.Status() {
		refused := strings.Contains(st.LastFailure.Detail, "address is not public")
		if st.Running || st.LastFailure.Kind != "dial" || !refused && !strings.Contains(st.LastFailure.Detail, "address family not supported") {
			t.Errorf("%s: %+v", st.URL, st.LastFailure)
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("a private address was called %d times", n)
	}
}

// TestEventAge: each source tells how old its newest event is, and one that never sent any for how
// long it has not.
func TestEventAge(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	speaker := newServer(t, func(_ int, c *client) {
		c.after(1, 1)
		c.stay()
	})
	mute := newServer(t, func(_ int, c *client) { c.stay() })
	registry := prometheus.NewRegistry()
	s := newStage(t, speaker.source, mute.source, func(o *firehose.Options) {
		o.Registerer = registry
		o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		ahead.Store(int64(-time.Hour)) // what follows is an hour later
	})
	ages := func() map[string]float64 {
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		all := map[string]float64{}
		for _, family := range families {
			if family.GetName() != "cistern_ingest_source_event_age_seconds" {
				continue
			}
			for _, m := range family.GetMetric() {
				all[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
			}
		}
		return all
	}
	ahead.Store(0)
	s.run()
	s.sees(speaker.url, 1)
	if got := ages(); len(got) != 2 || got[speaker.url] > 1800 || got[mute.url] < 3600 {
		t.Errorf("%v", got)
	}
	ahead.Store(int64(time.Hour))
	if got := ages(); got[speaker.url] < 3600 || got[mute.url] < 7200 {
		t.Errorf("an hour later %v", got)
	}
	if err := s.r.Remove(mute.url); err != nil {
		t.Fatal(err)
	}
	if got := ages(); len(got) != 1 {
		t.Errorf("of a source that is no more: %v", got)
	}
}
