package names

import (
	"context"
	"net"
	"net/http"
)

// Limits that tests reach.
const (
	ClientBurst   = clientBurst
	ClientRate    = clientRate
	SiteBurst     = siteBurst
	LookupTimeout = lookupTimeout
	BytesMax      = wellKnownBytesMax
	FoundFor      = foundFor
	MissingFor    = missingFor
	FailedFor     = failedFor
	CacheMax      = cacheMax
)

// At makes the resolver look for the host of a handle at a URL.
func (r *Resolver) At(base func(handle string) string) { r.lookup.base = base }

// Dial replaces the function by which hosts are connected to.
func (r *Resolver) Dial(dial func(ctx context.Context, network, address string) (net.Conn, error)) {
	r.lookup.client.Transport.(*http.Transport).DialContext = rooted(dial)
}

// Cached returns the number of handles in the cache.
func (r *Resolver) Cached() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cache.Len()
}

// Rooted is rooted.
var Rooted = rooted

// Answer makes a URL redirect to another, without a connection.
func (r *Resolver) Answer(url, to string) {
	r.lookup.client.Transport = redirects{r.lookup.client.Transport, url, to}
}

type redirects struct {
	http.RoundTripper
	url, to string
}

func (t redirects) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.String() != t.url {
		return t.RoundTripper.RoundTrip(req)
	}
	return &http.Response{StatusCode: http.StatusFound, Header: http.Header{"Location": {t.to}},
		Body: http.NoBody, Request: req}, nil
}
