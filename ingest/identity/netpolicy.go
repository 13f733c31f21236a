package identity

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"
)

// TransportOptions configures NewTransport.
type TransportOptions struct {
	// AllowPrivate permits connections to addresses that are not public. For development only.
	AllowPrivate bool
	// Resolver looks up names. Default net.DefaultResolver.
	Resolver *net.Resolver
	// DialTimeout bounds making one connection, name lookup included. Default 10s.
	DialTimeout time.Duration
	// ResponseHeaderTimeout bounds the wait for the answer's headers. Default 30s; negative for none.
	ResponseHeaderTimeout time.Duration
	// MaxConnsPerHost bounds the connections to one host, idle ones included. Default 0, no bound.
	MaxConnsPerHost int
	// MaxIdleConnsPerHost is how many idle connections per host are kept for reuse. Default 64.
	MaxIdleConnsPerHost int
	// MaxIdleConns bounds the idle connections of all hosts. Default 1024.
	MaxIdleConns int
	// ReadBufferBytes is the buffer of each connection. Default 64 KiB, which suits bulk transfers.
	ReadBufferBytes int
	// DisableCompression leaves Accept-Encoding and decoding to the caller.
	DisableCompression bool
	// HTTP2 offers HTTP/2. Default off: bulk bodies cost less over connections of their own.
	HTTP2 bool
}

// redirectsMax bounds how often one request may be sent elsewhere: a relay sends us to the PDS, and
// that perhaps to its new name.
const redirectsMax = 3

// responseHeaderBytesMax bounds the headers of one answer; real ones are below 4 KiB.
const responseHeaderBytesMax = 64 << 10

func (o TransportOptions) withDefaults() TransportOptions {
	o.DialTimeout = cmp.Or(o.DialTimeout, 10*time.Second)
	o.ResponseHeaderTimeout = max(0, cmp.Or(o.ResponseHeaderTimeout, 30*time.Second))
	o.MaxIdleConnsPerHost = cmp.Or(o.MaxIdleConnsPerHost, 64)
	o.MaxIdleConns = cmp.Or(o.MaxIdleConns, 1024)
	o.ReadBufferBytes = cmp.Or(o.ReadBufferBytes, 64<<10)
	return o
}

// NewTransport returns an HTTP transport for hosts named from outside: it connects to public
// addresses only (invariant 3) and never through a proxy.
func NewTransport(opts TransportOptions) *http.Transport {
	opts = opts.withDefaults()
	return &http.Transport{
		Proxy:                  nil,
		DialContext:            Dialer(opts),
		ForceAttemptHTTP2:      opts.HTTP2,
		TLSHandshakeTimeout:    opts.DialTimeout,
		ResponseHeaderTimeout:  opts.ResponseHeaderTimeout,
		ExpectContinueTimeout:  time.Second,
		IdleConnTimeout:        90 * time.Second,
		MaxConnsPerHost:        opts.MaxConnsPerHost,
		MaxIdleConnsPerHost:    opts.MaxIdleConnsPerHost,
		MaxIdleConns:           opts.MaxIdleConns,
		MaxResponseHeaderBytes: responseHeaderBytesMax,
		ReadBufferSize:         opts.ReadBufferBytes,
		DisableCompression:     opts.DisableCompression,
	}
}

// Dialer returns the dial function of NewTransport, for other protocols: it connects to public
// addresses only (ErrPrivateAddress), within DialTimeout.
func Dialer(
	opts TransportOptions,
) func(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: opts.withDefaults().DialTimeout, KeepAlive: 30 * time.Second,
		Resolver: opts.Resolver}
	if !opts.AllowPrivate {
		guard := &addressGuard{interfaces: net.InterfaceAddrs, now: time.Now}
		dialer.Control = guard.control
	}
	return dialer.DialContext
}

// CheckRedirect is an http.Client.CheckRedirect for hosts named from outside. It follows few
// redirects, none to a scheme other than http and https, and none from https to http. The transport
// checks the address of each.
func CheckRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > redirectsMax {
		return fmt.Errorf("more than %d redirects, the last to %.200s", redirectsMax, req.URL.Redacted())
	}
	from, to := via[len(via)-1].URL.Scheme, req.URL.Scheme
	if to != "https" && (to != "http" || from == "https") {
		return fmt.Errorf("redirect from %s to %.200s", from, req.URL.Redacted())
	}
	return nil
}

// addressGuard refuses connections to addresses that are not public, and to addresses of this
// machine: they reach services that a firewall closes to others. It knows the addresses of
// interfaces. An address that a router translates, as in clouds, is not among them.
type addressGuard struct {
	interfaces func() ([]net.Addr, error)
	now        func() time.Time

	// mu guards:
	mu   sync.Mutex
	own  []netip.Addr
	read time.Time
}

// ownAddressesAge is how old the list of this machine's addresses may be; reading it takes some
// 50 µs.
const ownAddressesAge = time.Minute

// control is a net.Dialer.Control: it checks the resolved address before the connection is made.
func (g *addressGuard) control(network, address string, _ syscall.RawConn) error {
	if network != "tcp4" && network != "tcp6" {
		return fmt.Errorf("dial network %s: %w", network, ErrPrivateAddress)
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("dial %q: %w", address, ErrPrivateAddress)
	}
	if err := CheckPublic(ap.Addr()); err != nil {
		return err
	}
	if slices.Contains(g.ownAddresses(), ap.Addr().Unmap()) {
		return fmt.Errorf("%s is an address of this machine: %w", ap.Addr(), ErrPrivateAddress)
	}
	return nil
}

// ownAddresses returns the addresses of the interfaces, or the last known ones if reading them
// fails.
func (g *addressGuard) ownAddresses() []netip.Addr {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	if !g.read.IsZero() && now.Sub(g.read) < ownAddressesAge {
		return g.own
	}
	g.read = now
	addrs, err := g.interfaces()
	if err != nil {
		return g.own
	}
	g.own = nil
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			g.own = append(g.own, prefix.Addr().Unmap().WithZone(""))
		}
	}
	return g.own
}

// CheckPublic returns ErrPrivateAddress, with the reason, unless addr is a public unicast address.
func CheckPublic(addr netip.Addr) error {
	if reason := privateReason(addr); reason != "" {
		return fmt.Errorf("%s is %s: %w", addr, reason, ErrPrivateAddress)
	}
	return nil
}

// privateReason returns why addr is not public, "" if it is public.
func privateReason(addr netip.Addr) string {
	if !addr.IsValid() {
		return "no address"
	}
	if addr.Zone() != "" {
		return "bound to an interface"
	}
	if addr.Is4In6() {
		if reason := privateReason(addr.Unmap()); reason != "" {
			return "IPv4-mapped, " + reason
		}
		return ""
	}
	for _, r := range reservedRanges {
		if r.prefix.Contains(addr) {
			return r.reason
		}
	}
	if addr.Is6() && !globalUnicast6.Contains(addr) {
		return "outside IPv6 global unicast"
	}
	return ""
}

// globalUnicast6 is what IANA has assigned for global use. All other addresses are refused.
var globalUnicast6 = netip.MustParsePrefix("2000::/3")

// reservedRanges is the IANA special-purpose registries (RFC 6890 and successors), less what is
// globally reachable. Ranges that embed an IPv4 address are refused as a whole: what they reach
// depends on an unknown gateway.
var reservedRanges = []struct {
	prefix netip.Prefix
	reason string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "this network"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private"},
	{netip.MustParsePrefix("100.64.0.0/10"), "carrier-grade NAT"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("168.63.129.16/32"),
		"Azure's own services"}, // public by number, answered by the host of a virtual machine
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private"},
	{netip.MustParsePrefix("192.0.0.0/24"), "IETF protocol assignments"},
	{netip.MustParsePrefix("192.0.2.0/24"), "documentation"},
	{netip.MustParsePrefix("192.88.99.0/24"), "6to4 relay"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private"},
	{netip.MustParsePrefix("198.18.0.0/15"), "benchmarking"},
	{netip.MustParsePrefix("198.51.100.0/24"), "documentation"},
	{netip.MustParsePrefix("203.0.113.0/24"), "documentation"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved or broadcast"},

	{netip.MustParsePrefix("::/128"), "unspecified"},
	{netip.MustParsePrefix("::1/128"), "loopback"},
	{netip.MustParsePrefix("::/96"), "IPv4-compatible"},
	{netip.MustParsePrefix("64:ff9b::/96"), "NAT64"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "local NAT64"},
	{netip.MustParsePrefix("100::/64"), "discard-only"},
	{netip.MustParsePrefix("2001::/32"), "Teredo"},
	{netip.MustParsePrefix("2001::/23"), "IETF protocol assignments"},
	{netip.MustParsePrefix("2001:db8::/32"), "documentation"},
	{netip.MustParsePrefix("2002::/16"), "6to4"},
	{netip.MustParsePrefix("3fff::/20"), "documentation"},
	{netip.MustParsePrefix("fc00::/7"), "unique local"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("fec0::/10"), "site-local"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
}
