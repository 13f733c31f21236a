package frontpage

import (
	"strings"

	"cistern/api/openapi"
)

// group is a part of the list of routes.
type group struct {
	Name   string
	ID     string
	Open   bool // shown without a click
	Routes []item
}

// item is a route with its example.
type item struct {
	Name    string // of the method, or the path
	Summary string
	Target  string // path and query of the example
	Command string // before the address, with its quote
	Base    string
	Browser bool // a browser can show the answer
}

// sections are the groups in the order of the page, each with what the paths of its routes begin
// with. Of several beginnings that fit a path, the longest counts.
var sections = []struct {
	name, id string
	open     bool
	begins   []string
}{
	{"Records", "records", true, []string{"/xrpc/com.atproto.repo.", "/xrpc/blue.microcosm.repo.",
		"/xrpc/com.bad-example.repo."}},
	{"Streams", "streams", true, []string{"/stream", "/subscribe", "/xrpc/network.bsky.jetstream."}},
	{"Repositories, proofs and hosts", "repositories", true, []string{"/xrpc/com.atproto.sync."}},
	{"Collections and exports", "collections", true, []string{"/collections", "/counts", "/export"}},
	{"Identities", "identities", true, []string{"/xrpc/com.atproto.identity.",
		"/xrpc/blue.microcosm.identity.", "/xrpc/com.bad-example.identity."}},
	{"Links", "links", false, []string{"/links", "/xrpc/blue.microcosm.links."}},
	{"Server", "server", true, []string{"/"}},
}

// sectionOf returns the index of the section of a path.
func sectionOf(path string) (at int) {
	longest := 0
	for i, s := range sections {
		for _, begin := range s.begins {
			if strings.HasPrefix(path, begin) && len(begin) > longest {
				at, longest = i, len(begin)
			}
		}
	}
	return at
}

// groups returns the routes that are answered, in groups, without empty groups.
func groups(f Facts, about openapi.Values) []group {
	all := make([]group, len(sections))
	for _, r := range openapi.Routes() {
		if f.Answered(r) {
			to := &all[sectionOf(r.Path)]
			to.Routes = append(to.Routes, newItem(r, about, f.Base))
		}
	}
	var shown []group
	for i, g := range all {
		if g.Name, g.ID, g.Open = sections[i].name, sections[i].id, sections[i].open; g.Routes != nil {
			shown = append(shown, g)
		}
	}
	return shown
}

// newItem returns a route with its example. Examples of lists are short, and those of exports are
// about one collection.
func newItem(r openapi.Route, about openapi.Values, base string) item {
	i := item{Name: strings.TrimPrefix(r.Path, "/xrpc/"), Summary: r.Summary,
		Target: r.Target(about, "limit"), Command: "curl '", Base: base}
	switch media := r.Media; {
	case media == "":
		i.Command, i.Base = "websocat '", "ws"+strings.TrimPrefix(base, "http")
	case r.Path == "/export":
		i.Target = r.Target(about, "collections", "limit")
	case media == "application/vnd.ipld.car":
		i.Command = "curl -o " + fileName(r.Path) + ".car '"
	case media == "application/octet-stream": // curl refuses to write it to a terminal
		i.Command = "curl -o dictionary '"
	default:
		i.Browser = true
	}
	return i
}

// fileName returns the last part of a method in lower case, without its verb.
func fileName(path string) string {
	return strings.ToLower(strings.TrimPrefix(path[strings.LastIndexByte(path, '.')+1:], "get"))
}
