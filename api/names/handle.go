package names

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"cistern/api/wire"
	"cistern/ingest/identity"
)

// lookup asks for one handle over the network.
type lookup struct {
	dns       *net.Resolver
	client    *http.Client
	userAgent string
	base      func(handle string) string // URL of the host of a handle
}

func newLookup(o Options) *lookup {
	guarded := identity.TransportOptions{AllowPrivate: o.AllowPrivate, Resolver: o.DNS,
		DialTimeout: lookupTimeout, ResponseHeaderTimeout: lookupTimeout, MaxConnsPerHost: 2,
		MaxIdleConnsPerHost: 1, MaxIdleConns: lookupsMax, ReadBufferBytes: 4 << 10,
		DisableCompression: true}
	transport := identity.NewTransport(guarded)
	transport.DialContext = rooted(transport.DialContext)
	return &lookup{dns: o.DNS, userAgent: o.UserAgent,
		client: &http.Client{Transport: transport, CheckRedirect: checkRedirect(o.AllowPrivate)},
		base:   func(handle string) string { return "https://" + handle }}
}

// rooted makes a dial function look names up as they are: without the final dot, a resolver also
// tries them below the search domains of this machine (invariant 2).
func rooted(
	dial func(context.Context, string, string) (net.Conn, error),
) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		if _, err := netip.ParseAddr(host); err != nil && !strings.HasSuffix(host, ".") {
			address = net.JoinHostPort(host+".", port)
		}
		return dial(ctx, network, address)
	}
}

// checkRedirect is identity.CheckRedirect, and refuses names that are not public and ports other
// than 443: a host could otherwise make the daemon send requests to other services.
func checkRedirect(allowPrivate bool) func(*http.Request, []*http.Request) error {
	return func(req *http.Request, via []*http.Request) error {
		if port := req.URL.Port(); port != "" && port != "443" && !allowPrivate {
			return fmt.Errorf("redirect to port %s: %w", port, ErrNotFound)
		}
		if why := reservedHost(req.URL.Hostname()); why != "" && !allowPrivate {
			return fmt.Errorf("redirect: %s: %w", why, ErrNotFound)
		}
		if err := identity.CheckRedirect(req, via); err != nil {
			return fmt.Errorf("%w: %w", err, ErrNotFound)
		}
		return nil
	}
}

// ask returns the DID that a handle leads to. DNS comes first, as the protocol prefers it.
func (l *lookup) ask(ctx context.Context, handle string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	did, dnsErr := l.askDNS(ctx, handle)
	if dnsErr == nil || errors.Is(dnsErr, errUnusable) {
		return did, dnsErr
	}
	did, err := l.askHost(ctx, handle)
	if errors.Is(err, ErrNotFound) && !errors.Is(dnsErr, ErrNotFound) {
		err = dnsErr // the record may exist
	}
	return did, err
}

// errUnusable is the ErrNotFound of a handle that leads to no account, or to several.
var errUnusable = fmt.Errorf("%w: the answer is no DID", ErrNotFound)

// askDNS reads the TXT record of a handle.
func (l *lookup) askDNS(ctx context.Context, handle string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout/2)
	defer cancel()
	texts, err := l.dns.LookupTXT(ctx, "_atproto."+handle+".")
	if missing := (*net.DNSError)(nil); errors.As(err, &missing) && missing.IsNotFound {
		return "", fmt.Errorf("no TXT record: %w", ErrNotFound)
	}
	if err != nil {
		return "", fmt.Errorf("look up the TXT record of %s: %w", handle, err)
	}
	did := ""
	for _, text := range texts {
		value, ok := strings.CutPrefix(text, "did=")
		switch {
		case !ok:
		case did != "" && value != did:
			return "", fmt.Errorf("several TXT records: %w", errUnusable)
		default:
			did = value
		}
	}
	if did == "" {
		return "", fmt.Errorf("no TXT record with did=: %w", ErrNotFound)
	}
	return did, checkDID(did)
}

// askHost reads the DID at the host of a handle.
func (l *lookup) askHost(ctx context.Context, handle string) (string, error) {
	url := l.base(handle) + "/.well-known/atproto-did"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("User-Agent", l.userAgent)
	resp, err := l.client.Do(req)
	if err != nil {
		return "", hostError(err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode >= http.StatusInternalServerError,
		resp.StatusCode == http.StatusTooManyRequests:
		return "", fmt.Errorf("HTTP %d from %s", resp.StatusCode, handle)
	case resp.StatusCode != http.StatusOK:
		return "", fmt.Errorf("HTTP %d: %w", resp.StatusCode, ErrNotFound)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, wellKnownBytesMax+1))
	if err != nil {
		return "", hostError(err)
	}
	if len(body) > wellKnownBytesMax {
		return "", fmt.Errorf("more than %d bytes: %w", wellKnownBytesMax, errUnusable)
	}
	line, _, _ := strings.Cut(string(body), "\n")
	did := strings.TrimSpace(line)
	return did, checkDID(did)
}

// hostError adds ErrNotFound to a lasting failure: the host has no address, or only addresses that
// are not public.
func hostError(err error) error {
	if missing := (*net.DNSError)(nil); errors.As(err, &missing) && missing.IsNotFound ||
		errors.Is(err, identity.ErrPrivateAddress) {
		return fmt.Errorf("%w: %w", err, ErrNotFound)
	}
	return err
}

func checkDID(did string) error {
	if reason := wire.BadDID(did); reason != "" || len(did) > didBytesMax {
		return fmt.Errorf("%s: %w", wire.Echo(did), errUnusable)
	}
	return nil
}

// keptFor returns how long the result of a lookup is kept.
func keptFor(err error) time.Duration {
	switch {
	case err == nil:
		return foundFor
	case errors.Is(err, ErrNotFound):
		return missingFor
	}
	return failedFor
}
