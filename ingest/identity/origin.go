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
	// originTextMax bounds the text that is parsed: no origin is half as long.
	originTextMax = 1024
)

// ParseOrigin returns the canonical form of an origin: a URL of http, https, ws or wss without a
// path, or a host with an optional port, which is read as https. The result has the scheme http or
// https, the host in lower case ASCII without a trailing dot, an address in its shortest form, and
// no port that is the scheme's default. Limits and counts per host use HostOf of it, so that no
// host counts as two because of another spelling. The error repeats s, clipped.
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

// ParseBase is ParseOrigin for a URL that may have a path, which it returns unchanged, escaped. Its
// error continues a sentence that begins with the URL.
func ParseBase(s string) (origin, path string, err error) {
	if len(s) > originTextMax {
		return "", "", fmt.Errorf("has more than %d bytes", originTextMax)
	}
	u, err := url.Parse(s)
	if err != nil && s != "" && !strings.Contains(s, "://") {
		return "", "", errScheme(s) // an IP address with a port is no valid URL either
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

// errScheme is the error for an address without a valid scheme. It does not repeat the address,
// which may hold a password.
func errScheme(s string) error {
	if s != "" && !strings.Contains(s, "://") {
		return errors.New("does not say whether it is http, https, ws or wss: put https:// before it, " +
			"or http:// if it speaks no TLS")
	}
	return errors.New("is not http, https, ws or wss")
}

// HostOf returns the host[:port] of a result of ParseOrigin, with any scheme and path.
func HostOf(origin string) string {
	_, rest, _ := strings.Cut(origin, "://")
	host, _, _ := strings.Cut(rest, "/")
	return host
}

// canonicalHost returns the canonical form of the DNS name or address in a URL.
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
		// Other characters are sent as punycode, in which several spellings are one name.
		if strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return "", errors.New("has a host that is not of letters, digits, - and _")
		}
		last = label
	}
	if addr, err := netip.ParseAddr(host); numeric(last) && (err != nil || !addr.Is4()) {
		// 127.1, 0x7f000001: resolvers read them
		return "", errors.New("has a host that is a number, but no IPv4 address")
	}
	return host, nil
}

// numeric reports whether a host that ends with the label is read as an IPv4 address (WHATWG URL,
// "ends in a number").
func numeric(label string) bool {
	if hex, ok := strings.CutPrefix(label, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}
