package ingest

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"cistern/store"
)

const subscribePath = "/xrpc/com.atproto.sync.subscribeRepos"

// ParseSource reads the address of a source: http, https, ws or wss, a host, perhaps a base path, and perhaps
// the path of subscribeRepos behind it. What it gives is the one form that stands in rows and answers: ws or wss,
// the host in lower case without a default port or a trailing dot, no slash at the end. The error names what is wrong.
func ParseSource(url string, pds bool) (store.Source, error) {
	normal, err := normalise(url)
	if err != nil {
		return store.Source{}, fmt.Errorf("source %.200q: %w", url, err)
	}
	return store.Source{URL: normal, PDS: pds}, nil
}

func normalise(text string) (string, error) {
	if len(text) > urlBytesMax {
		return "", fmt.Errorf("%d bytes are more than %d", len(text), urlBytesMax)
	}
	u, err := url.Parse(text)
	if err != nil {
		return "", errors.New("does not parse")
	}
	scheme, port := "", ""
	switch u.Scheme {
	case "http", "ws":
		scheme, port = "ws", "80"
	case "https", "wss":
		scheme, port = "wss", "443"
	default:
		return "", errors.New("is not http, https, ws or wss")
	}
	if u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#") {
		return "", errors.New("is more than a host and a path")
	}
	host, err := normalHost(u)
	if err != nil {
		return "", err
	}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return "", errors.New("has no valid port")
		}
		if p = strconv.FormatUint(n, 10); p != port {
			host += ":" + p
		}
	}
	path, err := basePath(u.EscapedPath())
	if err != nil {
		return "", err
	}
	return scheme + "://" + host + path, nil
}

func normalHost(u *url.URL) (string, error) {
	if strings.HasSuffix(u.Host, ":") {
		return "", errors.New("ends before its port")
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	if strings.HasPrefix(u.Host, "[") {
		addr, err := netip.ParseAddr(host)
		if err != nil || !addr.Is6() || addr.Zone() != "" {
			return "", errors.New("has no valid IPv6 address")
		}
		return "[" + addr.String() + "]", nil
	}
	if len(host) > 253 {
		return "", errors.New("has a host of more than 253 bytes")
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 {
			return "", errors.New("has no valid host")
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return "", errors.New("has a host that is not of letters, digits, - and _")
			}
		}
	}
	return host, nil
}

// basePath is what stands before the path of subscribeRepos, "" for nothing.
func basePath(path string) (string, error) {
	path = strings.TrimRight(path, "/")
	path = strings.TrimRight(strings.TrimSuffix(path, subscribePath), "/")
	if path == "" {
		return "", nil
	}
	for _, part := range strings.Split(path, "/")[1:] {
		if unescaped, err := url.PathUnescape(part); err != nil || part == "" || unescaped == "." || unescaped == ".." {
			return "", errors.New("has a path with empty, . or .. parts")
		}
	}
	if strings.HasSuffix(path, subscribePath) {
		return "", errors.New("has the path of subscribeRepos twice")
	}
	return path, nil
}

// subscribeURL is what is dialled, with a cursor unless it is negative.
func subscribeURL(source string, cursor int64) string {
	if cursor < 0 {
		return source + subscribePath
	}
	return source + subscribePath + "?cursor=" + strconv.FormatInt(cursor, 10)
}

// listingOf names the crawl cursor of a source's listing that is to be compared with what we hold.
func listingOf(source string) string { return "reconcile::http" + strings.TrimPrefix(source, "ws") }

// hostOf is the host of a normalised address, with its port unless it is the scheme's own.
func hostOf(url string) string {
	_, rest, _ := strings.Cut(url, "://")
	host, _, _ := strings.Cut(rest, "/")
	return host
}
