package identity_test

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"cistern/ingest/identity"
)

func TestCheckPublic(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		addr   string
		reason string // a part of it; "" means public
	}{
		{"1.1.1.1", ""},
		{"93.184.216.34", ""},
		{"172.15.255.255", ""}, // the neighbours of 172.16/12
		{"172.32.0.0", ""},
		{"100.63.255.255", ""}, // the neighbours of 100.64/10
		{"100.128.0.0", ""},
		{"223.255.255.255", ""}, // just below multicast
		{"2606:4700:4700::1111", ""},
		{"2001:470::1", ""}, // in 2001::/16, past the protocol assignments
		{"2a00::1", ""},

		{"0.0.0.0", "this network"}, // Linux connects it to loopback
		{"0.1.2.3", "this network"},
		{"10.0.0.1", "private"},
		{"172.16.0.1", "private"},
		{"172.31.255.255", "private"},
		{"192.168.1.1", "private"},
		{"100.64.0.1", "carrier-grade NAT"},
		{"100.127.255.255", "carrier-grade NAT"},
		{"127.0.0.1", "loopback"},
		{"127.255.255.254", "loopback"},
		{"169.254.169.254", "link-local"}, // cloud metadata
		{"168.63.129.15", ""},
		{"168.63.129.16", "Azure"}, // the same there
		{"168.63.129.17", ""},
		{"::ffff:168.63.129.16", "Azure"},
		{"192.0.0.170", "IETF protocol assignments"},
		{"192.0.2.1", "documentation"},
		{"198.51.100.1", "documentation"},
		{"203.0.113.1", "documentation"},
		{"192.88.99.1", "6to4 relay"},
		{"198.18.0.1", "benchmarking"},
		{"198.19.255.255", "benchmarking"},
		{"224.0.0.1", "multicast"},
		{"239.255.255.255", "multicast"},
		{"240.0.0.1", "reserved"},
		{"255.255.255.255", "broadcast"},

		{"::", "unspecified"}, // Linux connects it to loopback
		{"::1", "loopback"},
		{"::127.0.0.1", "IPv4-compatible"},
		{"::ffff:127.0.0.1", "IPv4-mapped, loopback"},
		{"::ffff:10.0.0.1", "IPv4-mapped, private"},
		{"::ffff:169.254.169.254", "IPv4-mapped, link-local"},
		{"::ffff:0:0", "IPv4-mapped, this network"},
		{"64:ff9b::a00:1", "NAT64"},   // 10.0.0.1 behind a translator
		{"64:ff9b::101:101", "NAT64"}, // even of a public address: the translator is unknown
		{"64:ff9b:1::1", "local NAT64"},
		{"100::1", "discard-only"},
		{"2001::1", "Teredo"},
		{"2001:0:4136:e378:8000:63bf:3fff:fdd2", "Teredo"},
		{"2001:2::1", "IETF protocol assignments"},  // benchmarking
		{"2001:10::1", "IETF protocol assignments"}, // ORCHID
		{"2001:db8::1", "documentation"},
		{"3fff::1", "documentation"},
		{"2002:7f00:1::1", "6to4"}, // 127.0.0.1 inside
		{"fc00::1", "unique local"},
		{"fd12:3456::1", "unique local"},
		{"fe80::1", "link-local"},
		{"fe80::1%eth0", "bound to an interface"},
		{"fec0::1", "site-local"},
		{"ff02::1", "multicast"},
		{"4000::1", "outside IPv6 global unicast"}, // not assigned by IANA
		{"5f00::1", "outside IPv6 global unicast"}, // segment routing
	} {
		err := identity.CheckPublic(netip.MustParseAddr(row.addr))
		switch {
		case row.reason == "" && err != nil:
			t.Errorf("%s was refused: %v", row.addr, err)
		case row.reason != "" && (!errors.Is(err, identity.ErrPrivateAddress) || !strings.Contains(err.Error(), row.reason)):
			t.Errorf("%s: %v, want %q", row.addr, err, row.reason)
		}
	}
	if err := identity.CheckPublic(netip.Addr{}); !errors.Is(err, identity.ErrPrivateAddress) {
		t.Errorf("no address: %v", err)
	}
	if err := identity.CheckPublic(netip.MustParseAddr("::ffff:1.1.1.1")); err != nil {
		t.Errorf("a mapped public address: %v", err)
	}
}

func TestTransportRefusesPrivateAddresses(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/away" {
			http.Redirect(w, r, "http://localhost"+r.Host[strings.LastIndex(r.Host, ":"):]+"/", http.StatusFound)
		}
	}))
	defer server.Close()
	port := server.URL[strings.LastIndex(server.URL, ":"):]
	guarded := identity.NewTransport(identity.TransportOptions{})
	open := identity.NewTransport(identity.TransportOptions{AllowPrivate: true})
	defer open.CloseIdleConnections()
	for _, row := range []struct{ url, why string }{
		{server.URL, "a literal address"},
		{"http://localhost" + port, "a name that resolves to loopback"},
		{"http://[::ffff:127.0.0.1]" + port, "loopback, mapped"},
		{"http://0.0.0.0" + port, "which Linux takes for loopback"},
		{"http://2130706433" + port, "127.0.0.1 as one number, which some resolvers accept"},
	} {
		resp, err := (&http.Client{Transport: guarded}).Get(row.url)
		if err == nil {
			resp.Body.Close()
			t.Errorf("%s (%s) was reached", row.url, row.why)
		} else if !errors.Is(err, identity.ErrPrivateAddress) && !strings.Contains(row.url, "2130706433") {
			t.Errorf("%s: %v", row.url, err)
		}
	}
	resp, err := (&http.Client{Transport: open}).Get(server.URL + "/away")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.Request.URL.Hostname() != "localhost" {
		t.Errorf("ended at %s", resp.Request.URL)
	}
}

func TestTransportIgnoresProxies(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	if identity.NewTransport(identity.TransportOptions{}).Proxy != nil {
		t.Error("the transport has a proxy function")
	}
}

// TestOwnAddresses: an address of this machine is refused though it is public, from when an interface has it.
func TestOwnAddresses(t *testing.T) {
	t.Parallel()
	var c clock
	own := []string{"127.0.0.1/8", "93.184.216.34/24", "2a00::7/64"}
	var broken error
	reads := 0
	check := identity.NewGuard(func() (addrs []net.Addr, err error) {
		reads++
		for _, text := range own {
			ip, network, err := net.ParseCIDR(text)
			if err != nil {
				t.Fatal(err)
			}
			addrs = append(addrs, &net.IPNet{IP: ip, Mask: network.Mask})
		}
		return addrs, broken
	}, c.now)
	refused := func(why, address string, want bool) {
		t.Helper()
		network := "tcp4"
		if strings.HasPrefix(address, "[") {
			network = "tcp6"
		}
		if err := check(network, address); errors.Is(err, identity.ErrPrivateAddress) != want {
			t.Errorf("%s: %s: %v", why, address, err)
		}
	}
	refused("its own", "93.184.216.34:80", true)
	refused("its own, of IPv6", "[2a00::7]:443", true)
	refused("its own, mapped", "[::ffff:93.184.216.34]:80", true)
	refused("a neighbour", "93.184.216.35:80", false)
	refused("a neighbour of IPv6", "[2a00::8]:443", false)
	refused("private", "10.0.0.1:80", true)
	if reads != 1 {
		t.Errorf("the addresses were read %d times", reads)
	}
	own = []string{"93.184.216.35/24"}
	c.advance(time.Minute)
	refused("its own now", "93.184.216.35:80", true)
	refused("no longer its own", "93.184.216.34:80", false)
	broken = errors.New("no netlink")
	c.advance(time.Minute)
	refused("as known last", "93.184.216.35:80", true)
}
