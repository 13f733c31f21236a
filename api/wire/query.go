package wire

import (
	"maps"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"cistern/api/clients"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Query holds the parameters of a request. Like the reference servers, it ignores unknown
// parameters.
type Query struct {
	values url.Values
	// Client is the client to which limits apply.
	Client netip.Prefix
	// Header is the header of the answer. Nil: the answer has no header.
	Header http.Header
	// Buffer is memory for the answer, which must not be used after it. Nil: there is no such memory.
	Buffer *Buffer
	match  []string // If-None-Match
	accept []string // Accept
}

// ParseQuery reads the parameters of a request. A parameter may be given more than once only if
// repeated names it. The error is a refusal.
func ParseQuery(r *http.Request, repeated ...string) (Query, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return Query{}, Invalid("the query string cannot be read: %v", err)
	}
	for name, given := range values {
		if len(given) > 1 && !slices.Contains(repeated, name) {
			return Query{}, Invalid("parameter %s is given %d times: want one value", Echo(name), len(given))
		}
	}
	return Query{values: values, Client: clients.Of(r.RemoteAddr),
		match: r.Header.Values("If-None-Match"), accept: r.Header.Values("Accept")}, nil
}

// Text returns a parameter, "" if it is missing.
func (q Query) Text(name string) string { return q.values.Get(name) }

// With returns the query with another value of a parameter.
func (q Query) With(name, value string) Query {
	values := make(url.Values, len(q.values))
	maps.Copy(values, q.values)
	values.Set(name, value)
	q.values = values
	return q
}

// All returns all values of a repeated parameter.
func (q Query) All(name string) []string { return q.values[name] }

// Accepts reports whether the client names a type of answers, and not JSON.
func (q Query) Accepts(media string) bool {
	accept := strings.Join(q.accept, ",")
	return strings.Contains(accept, media) && !strings.Contains(accept, "application/json")
}

// Required returns a parameter, or a refusal if it is missing.
func (q Query) Required(name string) (string, error) {
	v := q.Text(name)
	if v == "" {
		return "", Invalid("parameter %q is missing", name)
	}
	return v, nil
}

// Limit returns the parameter limit, or usual if it is missing.
func (q Query) Limit(usual, most int) (int, error) {
	v := q.Text("limit")
	if v == "" {
		return usual, nil
	}
	n, err := strconv.ParseUint(v, 10, 31) // without a sign: an unescaped + is a space
	if err != nil || n < 1 || n > uint64(most) {
		return 0, Invalid("limit %s is not an integer between 1 and %d", Echo(v), most)
	}
	return int(n), nil
}

// Uint64 returns a parameter that is a whole number, and whether it was given.
func (q Query) Uint64(name string) (n uint64, given bool, err error) {
	if !q.values.Has(name) {
		return 0, false, nil
	}
	v := q.Text(name)
	n, err = strconv.ParseUint(v, 10, 64)
	if err != nil {
		return 0, true, Invalid("%s %s: want a whole number from 0 to %d",
			name, Echo(v), uint64(math.MaxUint64))
	}
	return n, true, nil
}

// Bool returns a parameter that is true or false; a missing one is false.
func (q Query) Bool(name string) (bool, error) {
	switch v := q.Text(name); v {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, Invalid("%s %s is neither true nor false", name, Echo(v))
	}
}

// DID returns a required parameter that is a DID.
func (q Query) DID(name string) (string, error) {
	v, err := q.Required(name)
	if err != nil {
		return "", err
	}
	if !strings.HasPrefix(v, "did:") {
		if _, err := syntax.ParseHandle(v); err == nil {
			return "", Invalid("%s %s is a handle: want a DID", name, Echo(v))
		}
	}
	if reason := BadDID(v); reason != "" {
		return "", Invalid("%s %s is not a DID: %s", name, Echo(v), reason)
	}
	return v, nil
}

// Collection returns the required parameter collection.
func (q Query) Collection() (string, error) {
	v, err := q.Required("collection")
	if err != nil {
		return "", err
	}
	return v, checkNSID(v)
}

// Collections returns the values of the repeated parameter collection, sorted and without
// duplicates. The error is a refusal, also of more than most values.
func (q Query) Collections(most int) ([]string, error) {
	all := slices.Clone(q.All("collection"))
	if len(all) > most {
		return nil, Invalid("parameter collection is given %d times: want at most %d", len(all), most)
	}
	for _, v := range all {
		if err := checkNSID(v); err != nil {
			return nil, err
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

func checkNSID(v string) error {
	if _, err := syntax.ParseNSID(v); err != nil {
		return Invalid("collection %s is not an NSID", Echo(v))
	}
	return nil
}

// RecordKey returns a parameter that is a record key, "" if it is missing.
func (q Query) RecordKey(name string) (string, error) {
	v := q.Text(name)
	if v == "" {
		return "", nil
	}
	if _, err := syntax.ParseRecordKey(v); err != nil {
		return "", Invalid("%s %s is not a record key", name, Echo(v))
	}
	return v, nil
}

// LinkNext names the next page of a list in the headers of its answer; next "" means the last page.
func (q Query) LinkNext(w http.ResponseWriter, path, next string) {
	q.Header = w.Header()
	q.LinkPage(path, next)
}

// LinkPage is LinkNext for an answer whose header the query has.
func (q Query) LinkPage(path, next string) {
	if next == "" || q.Header == nil {
		return
	}
	q.Header.Set("Cistern-Next-Cursor", next)
	q = q.With("cursor", next)
	q.Header.Set("Link", "<"+path+"?"+q.values.Encode()+`>; rel="next"`)
}
