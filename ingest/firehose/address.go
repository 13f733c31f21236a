package firehose

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"cistern/ingest/identity"
	"cistern/store"
)

const subscribePath = "/xrpc/com.atproto.sync.subscribeRepos"

// ParseSource reads the address of a source: http, https, ws or wss, a host, perhaps a base path,
// and perhaps the path of subscribeRepos behind it. It returns the one form that rows and answers
// use: ws or wss, the host in lower case without a default port or a trailing dot, no slash at the
// end. The error names what is wrong.
func ParseSource(url string, pds bool) (store.Source, error) {
	normal, err := normalise(url)
	if err != nil {
		return store.Source{}, fmt.Errorf("source %.200q %w", url, err)
	}
	return store.Source{URL: normal, PDS: pds}, nil
}

func normalise(text string) (string, error) {
	if len(text) > urlBytesMax {
		return "", fmt.Errorf("has %d bytes, more than %d", len(text), urlBytesMax)
	}
	origin, path, err := identity.ParseBase(text)
	if err != nil {
		return "", err
	}
	if path, err = basePath(path); err != nil {
		return "", err
	}
	return "ws" + strings.TrimPrefix(origin, "http") + path, nil
}

// basePath returns what precedes the path of subscribeRepos, "" for nothing.
func basePath(path string) (string, error) {
	path = strings.TrimRight(path, "/")
	path = strings.TrimRight(strings.TrimSuffix(path, subscribePath), "/")
	if path == "" {
		return "", nil
	}
	for _, part := range strings.Split(path, "/")[1:] {
		if unescaped, err := url.PathUnescape(part); err != nil || part == "" || unescaped == "." ||
			unescaped == ".." {
			return "", errors.New("has a path with empty, . or .. parts")
		}
	}
	if strings.HasSuffix(path, subscribePath) {
		return "", errors.New("has the path of subscribeRepos twice")
	}
	return path, nil
}

// subscribeURL returns the URL to dial, with a cursor unless it is negative.
func subscribeURL(source string, cursor int64) string {
	if cursor < 0 {
		return source + subscribePath
	}
	return source + subscribePath + "?cursor=" + strconv.FormatInt(cursor, 10)
}

// Listing returns the base URL at which the listing of a source is read.
func Listing(source string) string { return "http" + strings.TrimPrefix(source, "ws") }
