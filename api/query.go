package api

import (
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"cistern/api/clients"
	"cistern/api/wire"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// query holds the parameters of a request, each at most once. Unknown parameters are ignored, as
// the reference servers do.
type query struct {
	values url.Values
	client netip.Prefix
}

func parseQuery(r *http.Request) (query, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return query{}, wire.Invalid("the query string cannot be read: %v", err)
	}
	for name, given := range values {
		if len(given) > 1 {
			return query{}, wire.Invalid("parameter %s is given %d times: want one value", wire.Echo(name), len(given))
		}
	}
	return query{values, clients.Of(r.RemoteAddr)}, nil
}

func (q query) text(name string) string { return q.values.Get(name) }

// required returns a parameter, or a refusal if it is missing.
func (q query) required(name string) (string, error) {
	v := q.text(name)
	if v == "" {
		return "", wire.Invalid("parameter %q is missing", name)
	}
	return v, nil
}

// limit returns the parameter limit, or usual if it is missing.
func (q query) limit(usual, most int) (int, error) {
	v := q.text("limit")
	if v == "" {
		return usual, nil
	}
	n, err := strconv.ParseUint(v, 10, 31) // without a sign: an unescaped + is a space
	if err != nil || n < 1 || n > uint64(most) {
		return 0, wire.Invalid("limit %s is not an integer between 1 and %d", wire.Echo(v), most)
	}
	return int(n), nil
}

// uint64 returns a parameter that is a whole number, and whether it was given.
func (q query) uint64(name string) (n uint64, given bool, err error) {
	if !q.values.Has(name) {
		return 0, false, nil
	}
	v := q.text(name)
	n, err = strconv.ParseUint(v, 10, 64)
	if err != nil {
		return 0, true, wire.Invalid("%s %s: want a whole number from 0 to %d", name, wire.Echo(v), uint64(math.MaxUint64))
	}
	return n, true, nil
}

func (q query) bool(name string) (bool, error) {
	switch v := q.text(name); v {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, wire.Invalid("%s %s is neither true nor false", name, wire.Echo(v))
	}
}

// did returns a required parameter that is a DID.
func (q query) did(name string) (string, error) {
	v, err := q.required(name)
	if err != nil {
		return "", err
	}
	if !strings.HasPrefix(v, "did:") {
		if _, err := syntax.ParseHandle(v); err == nil {
			return "", wire.Invalid("%s %s is a handle, and handles are not resolved here: give the DID", name, wire.Echo(v))
		}
	}
	if reason := wire.BadDID(v); reason != "" {
		return "", wire.Invalid("%s %s is not a DID: %s", name, wire.Echo(v), reason)
	}
	return v, nil
}

// collection returns the required parameter collection.
func (q query) collection() (string, error) {
	v, err := q.required("collection")
	if err != nil {
		return "", err
	}
	if _, err := syntax.ParseNSID(v); err != nil {
		return "", wire.Invalid("collection %s is not an NSID", wire.Echo(v))
	}
	return v, nil
}

// recordKey returns a parameter that is a record key, "" if it is missing.
func (q query) recordKey(name string) (string, error) {
	v := q.text(name)
	if v == "" {
		return "", nil
	}
	if _, err := syntax.ParseRecordKey(v); err != nil {
		return "", wire.Invalid("%s %s is not a record key", name, wire.Echo(v))
	}
	return v, nil
}

// linkNext names the next page of a list in the headers of its answer, if there is one.
func (q query) linkNext(w http.ResponseWriter, path, next string) {
	if next == "" {
		return
	}
	w.Header().Set("Cistern-Next-Cursor", next)
	q.values.Set("cursor", next)
	w.Header().Set("Link", "<"+path+"?"+q.values.Encode()+`>; rel="next"`)
}
