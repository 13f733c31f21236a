package identity

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

const (
	// hostTextMax bounds a host name (RFC 1035: 253 characters, 63 of them in one label).
	hostTextMax  = 253
	labelTextMax = 63
	// originTextMax bounds what is read at all: no origin takes half of it.
	originTextMax = 1024
)

// ParseOrigin is the one spelling of the origin that s names: a URL of http, https, ws or wss without a path, or only a host,
// perhaps with its port, which is taken for https. What it gives is http or https, the host in lower case ASCII without a
// trailing dot, an address in its shortest form, and no port that is the scheme's own. Whatever is counted per host is
// counted by HostOf of it, so that nobody becomes two hosts by writing his name differently. The error repeats s, clipped.
func ParseOrigin(s string) (string, error) {
	text := s
	switch addr, err := netip.ParseAddr(s); {
	case err == nil && addr.Is6():
		text = "https://[" + s + "]"
	case !strings.Contains(s, "://"):
		text = "https://" + s
	}
	origin, path, err := ParseBase(text)
	if err == nil && path != "" && path != "/" {
		err = errors.New("is more than an origin: it has a path")
	}
	if err != nil {
		return "", fmt.Errorf("%.200q %w", s, err)
	}
	return origin, nil
}

// ParseBase is ParseOrigin for URLs that may have a path, which it gives as it stands, escaped. Its error goes on a sentence that
// begins with the URL.
func ParseBase(s string) (origin, path string, err error) {
	if len(s) > originTextMax {
		return "", "", fmt.Errorf("has more than %d bytes", originTextMax)
	}
	u, err := url.Parse(s)
	if err != nil && s != "" && !strings.Contains(s, "://") {
		return "", "", errScheme(s) // host:port with an address does not parse either
	}
	if err != nil {
		return "", "", errors.New("does not parse as a URL")
	}
	scheme, standard := "http", uint64(80)
	switch u.Scheme {
	case "http", "ws":
	case "https", "wss":
		scheme, standard = "https", 443
	default:
		return "", "", errScheme(s)
	}
	if u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#") {
		return "", "", errors.New("is more than a host and a path")
	}
	host, err := canonicalHost(u)
	if err != nil {
		return "", "", err
	}
	if p := u.Port(); p != "" {
		port, err := strconv.ParseUint(p, 10, 16)
		if err != nil || port == 0 {
			return "", "", errors.New("has no valid port")
		}
		if port != standard {
			host += ":" + strconv.FormatUint(port, 10)
		}
	}
	return scheme + "://" + host, u.EscapedPath(), nil
}

// errScheme is the error about an address that does not begin as it should. It does not repeat it, which may hold a password.
func errScheme(s string) error {
	if s != "" && !strings.Contains(s, "://") {
		return errors.New("does not say whether it is http, https, ws or wss: put https:// before it, or http:// if it speaks no TLS")
	}
	return errors.New("is not http, https, ws or wss")
}

// HostOf is the host[:port] of what ParseOrigin gave, whatever stands before and behind it.
func HostOf(origin string) string {
	_, rest, _ := strings.Cut(origin, "://")
	host, _, _ := strings.Cut(rest, "/")
	return host
}

// canonicalHost is one spelling of the DNS name or address in a URL.
func canonicalHost(u *url.URL) (string, error) {
	if strings.HasSuffix(u.Host, ":") {
		return "", errors.New("ends before its port")
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	if strings.HasPrefix(u.Host, "[") {
		addr, err := netip.ParseAddr(host)
		if err != nil || !addr.Is6() || addr.Zone() != "" {
			return "", errors.New("has no valid IPv6 address")
		}
		if addr = addr.Unmap(); addr.Is4() {
			return addr.String(), nil
		}
		return "[" + addr.String() + "]", nil
	}
	if len(host) > hostTextMax {
		return "", fmt.Errorf("has a host of more than %d bytes", hostTextMax)
	}
	last := ""
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > labelTextMax {
			return "", errors.New("has no valid host")
		}
		// What is not ASCII is sent as punycode, and many spellings fold into one name.
		if strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return "", errors.New("has a host that is not of letters, digits, - and _")
		}
		last = label
	}
	if addr, err := netip.ParseAddr(host); numeric(last) && (err != nil || !addr.Is4()) {
		return "", errors.New("has a host that is a number, but no IPv4 address") // 127.1, 0x7f000001: resolvers read them
	}
	return host, nil
}

// numeric says whether a host that ends with the label is read as an IPv4 address (WHATWG URL, "ends in a number").
func numeric(label string) bool {
	if hex, ok := strings.CutPrefix(label, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}
