package api_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"cistern/api"
	"cistern/api/openapi"
	"cistern/store/storetest"

	"github.com/gorilla/websocket"
)

// The accounts and records of the examples.
const (
	exampleDID    = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
	exampleHandle = "atproto.com"
)

// newExamples is a world that has what the examples of openapi name.
func newExamples(t testing.TB) *world {
	t.Helper()
	g := newRegistry()
	g.handles[exampleHandle] = exampleDID
	w := newIndexed(t, api.Options{Names: g.resolver(t)})
	m := storetest.Records{"app.bsky.feed.like/3jzfcijpj2z2a": linkRecord(t,
		"at://"+exampleDID+"/app.bsky.feed.post/3jzfcijpj2z2a", "at://"+exampleDID)}
	for _, rkey := range []string{"3jzfcijpj2z2a", "3jzfcijpj2z2b", "3jzfcijpj2z2c"} {
		m["app.bsky.feed.post/"+rkey] = storetest.Text(rkey)
	}
	w.hold(t, exampleDID, m)
	w.examples = m
	w.resolved(t, exampleDID, exampleHandle)
	if _, err := w.store.HostID("enoki.us-east.host.bsky.network"); err != nil {
		t.Fatal(err)
	}
	return w
}

// Every route of the public listener is described, and no other.
func TestRoutesAreDescribed(t *testing.T) {
	t.Parallel()
	w := newExamples(t)
	var described []string
	for _, r := range openapi.Routes() {
		described = append(described, r.Path)
	}
	slices.Sort(described)
	if want := w.server.PublicPaths(); !slices.Equal(described, want) {
		t.Errorf("described are %q, routed %q", described, want)
	}
}

// exampleOf returns the parameters of an example: the required ones, and others by name.
func exampleOf(r openapi.Route, also ...string) url.Values {
	q := url.Values{}
	for _, p := range r.Parameters {
		if p.Example != "" && !p.InPath && (p.Required || slices.Contains(also, p.Name)) {
			q.Set(p.Name, p.Example)
		}
	}
	return q
}

// pathOf returns the path of a route with the examples of the parameters in it.
func pathOf(r openapi.Route) string {
	path := r.Path
	for _, p := range r.Parameters {
		if p.InPath {
			path = strings.ReplaceAll(path, "{"+p.Name+"}", p.Example)
		}
	}
	return path
}

// Each example works: with the required parameters, with each other one, and with all. The answer
// has the fields that are described.
func TestExamplesWork(t *testing.T) {
	t.Parallel()
	w := newExamples(t)
	for _, r := range openapi.Routes() {
		queries := []url.Values{exampleOf(r)}
		var all []string
		for _, p := range r.Parameters {
			queries = append(queries, exampleOf(r, p.Name))
			all = append(all, p.Name)
			if p.Repeated && p.Example != "" {
				q := exampleOf(r, p.Name)
				q.Add(p.Name, p.Example)
				queries = append(queries, q)
			}
			for _, value := range p.Values {
				q := exampleOf(r)
				q.Set(p.Name, value)
				if p.Name != "compress" || r.Path != "/subscribe" { // needs a dictionary
					queries = append(queries, q)
				}
			}
		}
		for _, q := range append(queries, exampleOf(r, all...)) {
			w.example(t, r, q)
		}
	}
}

// example asks a route, and compares the answer with its description.
func (w *world) example(t testing.TB, r openapi.Route, q url.Values) {
	t.Helper()
	target := w.public.URL + pathOf(r) + "?" + q.Encode()
	if r.Media == "" {
		ws, res, err := websocket.DefaultDialer.Dial("ws"+strings.TrimPrefix(target, "http"), nil)
		if err != nil {
			t.Errorf("%s %v: %v, %v", r.Path, q, res, err)
			return
		}
		_ = ws.Close()
		return
	}
	var text string
	res := call(t, "GET", target, "", nil, &text)
	want := r.Media
	if other := r.Medias[q.Get("format")]; other != "" {
		want = other
	}
	if media, _, _ := strings.Cut(res.Header.Get("Content-Type"), ";"); res.StatusCode != 200 || media != want {
		t.Errorf("%s %v: %d %s %.200s", r.Path, q, res.StatusCode, media, text)
		return
	}
	if r.Fields == nil {
		return
	}
	var answer any
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		t.Fatal(err)
	}
	for _, difference := range compareFields(r.Fields, answer) {
		t.Errorf("%s %v: %s in %s", r.Path, q, difference, text)
	}
}

// compareFields returns how an object differs from its description.
func compareFields(fields []openapi.Field, value any) (differences []string) {
	object, ok := value.(map[string]any)
	if !ok {
		return []string{fmt.Sprintf("%v is no object", value)}
	}
	known := map[string]bool{}
	for _, f := range fields {
		known[f.Name] = true
		got, ok := object[f.Name]
		if !ok {
			if !f.Optional {
				differences = append(differences, f.Name+" is missing")
			}
			continue
		}
		items := []any{got}
		if f.Array {
			if items, ok = got.([]any); !ok {
				differences = append(differences, f.Name+" is no array")
			}
		}
		for _, item := range items {
			switch kind := fmt.Sprintf("%T", item); {
			case f.Fields != nil:
				differences = append(differences, compareFields(f.Fields, item)...)
			case kind != map[string]string{"string": "string", "integer": "float64", "boolean": "bool", "object": "map[string]interface {}"}[f.Type]:
				differences = append(differences, fmt.Sprintf("%s is a %s, not a %s", f.Name, kind, f.Type))
			}
		}
	}
	for name := range object {
		if !known[name] {
			differences = append(differences, name+" is not described")
		}
	}
	return differences
}

// What is said of a parameter holds: it is required, has its format and its bounds, and is given
// once unless it may be repeated.
func TestParametersAreAsDescribed(t *testing.T) {
	t.Parallel()
	w := newExamples(t)
	for _, r := range openapi.Routes() {
		if !strings.HasPrefix(r.Path, "/xrpc/com.atproto.") {
			continue
		}
		for _, p := range r.Parameters {
			with := func(value string, status int) {
				t.Helper()
				q := exampleOf(r)
				q.Set(p.Name, value)
				var text string
				if res := call(t, "GET", w.public.URL+r.Path+"?"+q.Encode(), "", nil, &text); res.StatusCode != status {
					t.Errorf("%s with %s=%q: %d %s, want %d", r.Path, p.Name, value, res.StatusCode, text, status)
				}
			}
			if p.Required {
				q := exampleOf(r)
				q.Del(p.Name)
				w.refuses(t, strings.TrimPrefix(r.Path, "/xrpc/"), q, 400, "InvalidRequest", strconv.Quote(p.Name))
			}
			if p.Format != "" {
				with("!", 400)
			}
			if p.Values != nil {
				with("other", 400)
			}
			if p.Most > 0 {
				with("0", 400)
				with("1", 200)
				with(strconv.Itoa(p.Most), 200)
				with(strconv.Itoa(p.Most+1), 400)
				with("1.5", 400)
			}
			q := exampleOf(r, p.Name)
			q.Add(p.Name, p.Example)
			if !p.Repeated && p.Example != "" {
				w.refuses(t, strings.TrimPrefix(r.Path, "/xrpc/"), q, 400, "InvalidRequest", p.Name)
			}
		}
	}
}

// The document has each route once, under a name of its own, and refers to nothing that it lacks.
func TestDocument(t *testing.T) {
	t.Parallel()
	w := newExamples(t)
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string
			Parameters  []struct {
				Name, In string
				Schema   map[string]any
			}
			Responses map[string]any
		}
	}
	if res := call(t, "GET", w.public.URL+"/openapi.json", "", nil, &doc); res.StatusCode != 200 || doc.OpenAPI != "3.1.0" {
		t.Errorf("%d %s", res.StatusCode, doc.OpenAPI)
	}
	names := map[string]string{}
	for path, methods := range doc.Paths {
		op, ok := methods["get"]
		if !ok || len(methods) != 1 || op.OperationID == "" || names[op.OperationID] != "" || len(op.Responses) != 2 {
			t.Errorf("%s: %+v, beside %s", path, methods, names[op.OperationID])
		}
		names[op.OperationID] = path
		for _, p := range op.Parameters {
			inPath := strings.Contains(path, "{"+p.Name+"}")
			if p.Name == "" || (p.In == "path") != inPath || p.In != "query" && !inPath || p.Schema["type"] == nil {
				t.Errorf("%s: parameter %+v", path, p)
			}
		}
	}
	if len(doc.Paths) != len(openapi.Routes()) {
		t.Errorf("%d paths of %d routes", len(doc.Paths), len(openapi.Routes()))
	}
}
