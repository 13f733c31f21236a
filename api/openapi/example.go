package openapi

import (
	"net/url"
	"slices"
	"strings"
)

// Values are what the examples of an index are about: one of its accounts, a record of this
// account, and its host.
type Values struct{ DID, Handle, Host, Collection, Rkey, CID string }

// readable are characters that a query may have as they are (RFC 3986, section 3.4), and that
// url.QueryEscape escapes.
var readable = strings.NewReplacer("%3A", ":", "%2F", "/")

// Target returns path and query of a request to the route: its example about the values, with the
// required parameters and those that are named. It has no character that a shell or HTML would read
// as its own within single quotes. Accounts are named by their DID, which needs no lookup.
func (r Route) Target(v Values, also ...string) string {
	values := strings.NewReplacer(exampleDID, v.DID, exampleHandle, v.Handle, exampleHost, v.Host,
		exampleCollection, v.Collection, exampleRkey, v.Rkey, exampleCID, v.CID)
	path, query := r.Path, ""
	for _, p := range r.Parameters {
		value := values.Replace(p.Example)
		if p.Format == "at-identifier" {
			value = v.DID
		}
		switch {
		case p.InPath:
			path = strings.ReplaceAll(path, "{"+p.Name+"}", url.PathEscape(value))
		case p.Example != "" && (p.Required || slices.Contains(also, p.Name)):
			query += "&" + p.Name + "=" + readable.Replace(url.QueryEscape(value))
		}
	}
	if query == "" {
		return path
	}
	return path + "?" + query[1:]
}
