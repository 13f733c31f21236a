package identity_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cistern/ingest/identity"
	"cistern/ingest/simnet"
)

// script answers the hosts it knows without a network, and sends all others on to the transport behind it.
type script struct {
	hosts map[string]http.HandlerFunc
	next  http.RoundTripper
}

func (s *script) RoundTrip(req *http.Request) (*http.Response, error) {
	handler := s.hosts[req.URL.Host]
	if handler == nil {
		return s.next.RoundTrip(req)
	}
	w := httptest.NewRecorder()
	handler(w, req)
	resp := w.Result()
	resp.Request = req
	return resp, nil
}

// private resolves every name below .private.dev: a label like 127-0-0-1 to that address, and "turncoat" to a public address
// the first time and to loopback ever after.
func private() *net.Resolver {
	var mu sync.Mutex
	asked := map[string]int{}
	return simnet.Resolver(func(name string) []netip.Addr {
		label, ok := strings.CutSuffix(name, ".private.dev")
		if !ok {
			return nil
		}
		if label == "turncoat" {
			mu.Lock()
			defer mu.Unlock()
			if asked[label]++; asked[label] <= 2 { // IPv4 and IPv6
				return []netip.Addr{netip.MustParseAddr("1.1.1.1")}
			}
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}
		}
		return []netip.Addr{fromLabel(label)}
	})
}

// inLabel is an address as a label of a name.
func inLabel(addr netip.Addr) string {
	if addr.Is4() {
		return strings.ReplaceAll(addr.String(), ".", "-")
	}
	return fmt.Sprintf("v6-%x", addr.AsSlice())
}

func fromLabel(label string) netip.Addr {
	if hex, ok := strings.CutPrefix(label, "v6-"); ok {
		var b []byte
		_, _ = fmt.Sscanf(hex, "%x", &b)
		addr, _ := netip.AddrFromSlice(b)
		return addr
	}
	return netip.MustParseAddr(strings.ReplaceAll(label, "-", "."))
}

// TestEveryWayIsGuarded: neither a did:web nor a redirect of a PLC directory or a did:web reaches
// an address that is not public: not as a number, nor by a name, nor by a name that resolved to
// another address when it was checked.
func TestEveryWayIsGuarded(t *testing.T) {
	t.Parallel()
	var reached atomic.Int64
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			reached.Add(1)
			conn.Close()
		}
	}()
	port := fmt.Sprint(listener.Addr().(*net.TCPAddr).Port)

	hosts := []string{"turncoat.private.dev"}
	for _, addr := range simnet.Private() {
		hosts = append(hosts, inLabel(addr)+".private.dev")
	}
	resolver := private()
	if first, err := resolver.LookupNetIP(t.Context(), "ip4", "turncoat.private.dev"); err != nil || identity.CheckPublic(first[0]) != nil {
		t.Fatalf("the first lookup gives %v, %v", first, err)
	}
	_, _ = resolver.LookupNetIP(t.Context(), "ip6", "turncoat.private.dev")

	to := "" // where the hosts that answer send us
	away := func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusFound) }
	hop := func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://public.dev/", http.StatusMovedPermanently)
	}
	ways := map[string]string{ // by name: the DID
		"did:web":                     "did:web:%s",
		"redirect of did:web":         "did:web:public.dev",
		"redirect of a redirect":      "did:web:hop.dev",
		"redirect of a PLC directory": "did:plc:cccccccccccccccccccccccc",
	}
	check := func(way, did, host string) {
		d := guarded(t, resolver)
		identity.WrapTransport(d, func(next http.RoundTripper) http.RoundTripper {
			return &script{hosts: map[string]http.HandlerFunc{"public.dev": away, "plc.dev": away, "hop.dev": hop}, next: next}
		})
		if _, err := d.Resolve(t.Context(), did); !errors.Is(err, identity.ErrPrivateAddress) && !noIPv6(err) {
			t.Errorf("%s to %s: %v", way, host, err)
		}
		_, err := d.KeysAt(t.Context(), did, time.Now())
		if strings.HasPrefix(did, "did:plc:") && !errors.Is(err, identity.ErrPrivateAddress) && !noIPv6(err) {
			t.Errorf("audit log, %s to %s: %v", way, host, err)
		}
	}
	for way, did := range ways {
		for _, host := range hosts {
			to = "https://" + host + ":" + port + "/x"
			if strings.Contains(did, "%s") {
				check(way, fmt.Sprintf(did, host), host)
			} else {
				check(way, did, host)
			}
		}
		for _, addr := range simnet.Private() { // by number; no did:web is one
			if !strings.Contains(did, "%s") {
				to = "https://" + netip.AddrPortFrom(addr, uint16(listener.Addr().(*net.TCPAddr).Port)).String() + "/x"
				check(way, did, to)
			}
		}
	}
	for _, addr := range simnet.Private() {
		d := guarded(t, resolver)
		if _, err := d.Resolve(t.Context(), "did:web:"+addr.String()); !errors.Is(err, identity.ErrInvalid) {
			t.Errorf("did:web of %s: %v", addr, err)
		}
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("a private address was called %d times", n)
	}
}

// guarded returns a Directory as in production, except for its resolver.
func guarded(t *testing.T, resolver *net.Resolver) *identity.Directory {
	d, err := identity.New(identity.Options{PLC: []string{"https://plc.dev"}, Resolver: resolver, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// noIPv6 reports whether the machine has no IPv6.
func noIPv6(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "address family not supported") || strings.Contains(err.Error(), "cannot assign requested"))
}

// TestDialerGuards is the same for protocols other than HTTP.
func TestDialerGuards(t *testing.T) {
	t.Parallel()
	dial := identity.Dialer(identity.TransportOptions{Resolver: private()})
	for _, addr := range simnet.Private() {
		for _, host := range []string{addr.String(), inLabel(addr) + ".private.dev"} {
			conn, err := dial(t.Context(), "tcp", net.JoinHostPort(host, "443"))
			if err == nil {
				conn.Close()
			}
			if !errors.Is(err, identity.ErrPrivateAddress) && !noIPv6(err) {
				t.Errorf("%s: %v", host, err)
			}
		}
	}
	for _, network := range []string{"udp", "unix"} {
		if conn, err := dial(t.Context(), network, "1.1.1.1:53"); err == nil {
			conn.Close()
			t.Errorf("dialled %s", network)
		}
	}
}

// TestLookupsAreBounded: no host keeps a lookup longer than its time, or has it read more than a document takes, however it goes on.
func TestLookupsAreBounded(t *testing.T) {
	t.Parallel()
	endless := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := io.WriteString(w, strings.Repeat(" ", 4096)); err != nil {
				return
			}
		}
	}
	silent := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	trickle := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			_, _ = io.WriteString(w, " ")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	for name, row := range map[string]struct {
		handler http.HandlerFunc
		want    error
	}{
		"endless": {endless, identity.ErrInvalid},
		"silent":  {silent, context.DeadlineExceeded},
		"trickle": {trickle, context.DeadlineExceeded},
		"headers": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("y", 1<<20)) }, nil},
	} {
		server := httptest.NewServer(row.handler)
		d := newDirectory(t, identity.Options{PLC: []string{server.URL}, Timeout: 3 * time.Second})
		_, err := d.Resolve(t.Context(), "did:plc:cccccccccccccccccccccccc")
		if err == nil || row.want != nil && !errors.Is(err, row.want) {
			t.Errorf("%s: %v, want %v", name, err, row.want)
		}
		server.CloseClientConnections()
		server.Close()
	}
}
