package backlinks_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"cistern/api/backlinks"
	"cistern/api/wire"
	"cistern/gate"
	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/linkindex"
	"cistern/store/storetest"

	"github.com/fxamacker/cbor/v2"
)

// world is a store with an index of its links, which follows the log.
type world struct {
	store   *store.Store
	index   *linkindex.Index
	answers *backlinks.Backlinks
	methods map[string]backlinks.Method
	gate    gate.Gate // pauses the index
	revs    int
	windows bool // counts come in several windows
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{store: storetest.Open(t, store.Options{}), methods: map[string]backlinks.Method{}}
	var err error
	if w.index, err = linkindex.Open(linkindex.Options{Store: w.store, Dir: "links", Gate: &w.gate}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.index.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, w.index.Close()); err != nil {
			t.Error(err)
		}
	})
	b := backlinks.New(w.index, w.store)
	w.answers = b
	for name, m := range b.Methods() {
		w.methods[strings.TrimPrefix(name, "blue.microcosm.links.")] = m
	}
	for path, m := range b.Older() {
		w.methods[path] = m
	}
	return w
}

// catchUp waits until the index has every event.
func (w *world) catchUp(t testing.TB) {
	t.Helper()
	head := storetest.Head(t, w.store)
	for st := w.index.State(); st.Building || st.Through < head; st = w.index.State() {
		if st.Err != nil {
			t.Fatal(st.Err)
		}
		<-time.After(time.Millisecond)
	}
}

// pause keeps the index behind the log until the gate opens.
func (w *world) pause() { w.gate.Shut(gate.Cause{Name: "test", Reason: "test"}) }

// hold gives an account its records, which are objects by path.
func (w *world) hold(t testing.TB, did string, records map[string]any) {
	t.Helper()
	m := storetest.Records{}
	for path, v := range records {
		m[path] = encode(t, v)
	}
	w.update(t, did, func(b *store.Batch, r *store.Repo) { b.Track(r, store.ByOperator, store.PriorityOperator) })
	r, err := w.store.Repo(did)
	if err != nil {
		t.Fatal(err)
	}
	w.revs++
	im := m.Import(r, storetest.Rev(w.revs))
	im.Done = func(_ store.Repo, err error) {
		if err != nil {
			t.Errorf("import: %v", err)
		}
	}
	if err := errors.Join(w.store.Import(t.Context(), im), w.store.FlushImports()); err != nil {
		t.Fatal(err)
	}
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	mode, err := cbor.CanonicalEncOptions().EncMode()
	if err != nil {
		t.Fatal(err)
	}
	b, err := mode.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// update changes a row under its lock.
func (w *world) update(t testing.TB, did string, fn func(b *store.Batch, r *store.Repo)) {
	t.Helper()
	wait, err := w.store.UpdateRepo(did, func(b *store.Batch, r *store.Repo) error {
		fn(b, r)
		b.PutRepo(r)
		return nil
	})
	if err := errors.Join(err, wait()); err != nil {
		t.Fatal(err)
	}
}

func (w *world) hide(t testing.TB, did string) {
	t.Helper()
	w.update(t, did, func(b *store.Batch, r *store.Repo) {
		b.Hide(r, store.StatusTakendown, store.OriginHost, store.Retry{})
		b.Account(r)
	})
}

// ask asks a method, and returns the answer and its header.
func (w *world) ask(t testing.TB, method, query string) (string, http.Header, error) {
	t.Helper()
	r := httptest.NewRequest("GET", "/x", nil)
	r.URL.RawQuery = query
	q, err := wire.ParseQuery(r, backlinks.Repeated()...)
	if err != nil {
		return "", nil, err
	}
	q.Header = http.Header{}
	body, err := w.methods[method](q)
	return string(body), q.Header, err
}

// get asks a method that must answer, and decodes the answer into out.
func (w *world) get(t testing.TB, method string, q url.Values, out any) {
	t.Helper()
	body, _, err := w.ask(t, method, q.Encode())
	if err != nil {
		t.Fatalf("%s %v: %v", method, q, err)
	}
	if err := json.Unmarshal([]byte(body), out); err != nil {
		t.Fatalf("%s %v: %v in %s", method, q, err, body)
	}
}

var alice, bob, carol = storetest.DID(1), storetest.DID(2), storetest.DID(3)

// Subjects of the example: a post and a page of carol, and two lists of alice.
var (
	post  = "at://" + carol + "/app.bsky.feed.post/1"
	listX = "at://" + alice + "/app.bsky.graph.list/x"
	listY = "at://" + alice + "/app.bsky.graph.list/y"
)

func like(uri string) any { return map[string]any{"subject": map[string]any{"uri": uri}} }

func listItem(did string, lists ...string) any {
	return map[string]any{"subject": did, "list": lists[0], "more": lists[1:]}
}

// newExample is a world in which alice, then bob like a post and list carol.
func newExample(t testing.TB) *world {
	t.Helper()
	w := newWorld(t)
	w.hold(t, alice, map[string]any{
		"app.bsky.feed.like/a":      like(post),
		"app.bsky.graph.listitem/1": listItem(carol, listX),
		"app.bsky.graph.listitem/2": listItem(carol, listY),
	})
	w.catchUp(t)
	w.hold(t, bob, map[string]any{
		"app.bsky.feed.like/b":      like("at://" + carol + "/app.bsky.feed.post/%31"), // the same post
		"app.bsky.feed.like/c":      like("https://Example.com/../page"),
		"app.bsky.graph.listitem/3": listItem(carol, listX, "did:plc:other", "did:plc:other", "did:plc:third"),
	})
	w.catchUp(t)
	return w
}

const likes, items = "app.bsky.feed.like:subject.uri", "app.bsky.graph.listitem:subject"

// TestShapes compares answers with the shapes that clients of the running service know.
func TestShapes(t *testing.T) {
	t.Parallel()
	w := newExample(t)
	rec := func(did, collection, rkey string) string {
		return fmt.Sprintf(`{"did":%q,"collection":%q,"rkey":%q}`, did, collection, rkey)
	}
	a, b := rec(alice, "app.bsky.feed.like", "a"), rec(bob, "app.bsky.feed.like", "b")
	item := func(did, rkey, other string) string {
		return fmt.Sprintf(`{"linkRecord":%s,"otherSubject":%q}`, rec(did, "app.bsky.graph.listitem", rkey), other)
	}
	older := url.Values{"target": {post}, "collection": {"app.bsky.feed.like"}, "path": {".subject.uri"}}
	with := func(q url.Values, more ...string) url.Values {
		all := url.Values{}
		for k, v := range q {
			all[k] = v
		}
		for i := 0; i < len(more); i += 2 {
			all[more[i]] = append(all[more[i]], more[i+1])
		}
		return all
	}
	newer := url.Values{"subject": {post}, "source": {likes}}
	many := url.Values{"subject": {carol}, "source": {items}, "pathToOther": {"list"}}
	for _, c := range []struct {
		method string
		q      url.Values
		want   string
	}{
		{"getBacklinks", newer, `{"total":2,"records":[` + b + `,` + a + `]}`},
		{"getBacklinks", with(newer, "reverse", "true"), `{"total":2,"records":[` + a + `,` + b + `]}`},
		{"getBacklinks", with(newer, "did", alice, "did", carol), `{"total":2,"records":[` + a + `]}`},
		{"getBacklinks", with(newer, "did", "x"), `{"total":2,"records":[]}`},
		{"getBacklinks", url.Values{"subject": {"https://example.com/page"}, "source": {likes}},
			`{"total":1,"records":[` + rec(bob, "app.bsky.feed.like", "c") + `]}`},
		{"getBacklinks", url.Values{"subject": {"https://example.com/none"}, "source": {likes}}, `{"total":0,"records":[]}`},
		{"getBacklinks", url.Values{"subject": {post}, "source": {"app.bsky.feed.like:.subject.uri"}}, `{"total":0,"records":[]}`},
		{"getBacklinksCount", newer, `{"total":2}`},
		{"getBacklinkDids", newer, `{"total":2,"linking_dids":["` + bob + `","` + alice + `"]}`},
		{"getManyToMany", many, `{"items":[` + item(bob, "3", listX) + `,` + item(alice, "2", listY) + `,` + item(alice, "1", listX) + `]}`},
		{"getManyToMany", with(many, "linkDid", alice, "otherSubject", listX), `{"items":[` + item(alice, "1", listX) + `]}`},
		{"getManyToManyCounts", many, `{"counts_by_other_subject":[{"subject":"` + listX + `","total":2,"distinct":2},{"subject":"` + listY + `","total":1,"distinct":1}]}`},
		{"getManyToManyCounts", with(many, "did", bob), `{"counts_by_other_subject":[{"subject":"` + listX + `","total":1,"distinct":1}]}`},
		{"getManyToManyCounts", with(many, "otherSubject", listY), `{"counts_by_other_subject":[{"subject":"` + listY + `","total":1,"distinct":1}]}`},
		{"getManyToManyCounts", url.Values{"subject": {carol}, "source": {items}, "pathToOther": {"none"}}, `{"counts_by_other_subject":[]}`},
		{"/links", older, `{"total":2,"linking_records":[` + b + `,` + a + `]}`},
		{"/links", with(older, "from_dids", alice+","+carol), `{"total":2,"linking_records":[` + a + `]}`},
		{"/links/count", older, `{"total":2}`},
		{"/links/distinct-dids", older, `{"total":2,"linking_dids":["` + bob + `","` + alice + `"]}`},
		{"/links/count/distinct-dids", older, `{"total":2}`},
		{"/links/all", url.Values{"target": {carol}},
			`{"links":{"app.bsky.graph.listitem":{".subject":{"records":3,"distinct_dids":2}}}}`},
		{"/links/all/count", url.Values{"target": {carol}}, `{"links":{"app.bsky.graph.listitem":{".subject":3}}}`},
		{"/links/all", url.Values{"target": {listX}},
			`{"links":{"app.bsky.graph.listitem":{".list":{"records":2,"distinct_dids":2}}}}`},
		{"/links/all", url.Values{"target": {"did:plc:none"}}, `{"links":{}}`},
	} {
		got, header, err := w.ask(t, c.method, c.q.Encode())
		if err != nil || got != c.want {
			t.Errorf("%s %v:\n got %s, %v\nwant %s", c.method, c.q, got, err, c.want)
		}
		if through := fmt.Sprint(storetest.Head(t, w.store)); header.Get("Cistern-Epoch") != w.store.Epoch() || header.Get("Cistern-Through") != through || header.Get("Cistern-Building") != "" {
			t.Errorf("%s: header %v, want event %s", c.method, header, through)
		}
	}
}

// TestCursors: every page but the last has a cursor, which is in hex.
func TestCursors(t *testing.T) {
	t.Parallel()
	w := newExample(t)
	for _, c := range []struct {
		method, list string
		q            url.Values
		items        int
	}{
		{"getBacklinks", "records", url.Values{"subject": {post}, "source": {likes}}, 2},
		{"getBacklinks", "records", url.Values{"subject": {post}, "source": {likes}, "reverse": {"true"}}, 2},
		{"getBacklinkDids", "linking_dids", url.Values{"subject": {post}, "source": {likes}}, 2},
		{"getManyToMany", "items", url.Values{"subject": {carol}, "source": {items}, "pathToOther": {"list"}}, 3},
		{"getManyToMany", "items", url.Values{"subject": {carol}, "source": {items}, "pathToOther": {"more[]"}}, 2},
		{"getManyToManyCounts", "counts_by_other_subject", url.Values{"subject": {carol}, "source": {items}, "pathToOther": {"list"}}, 2},
		{"/links", "linking_records", url.Values{"target": {post}, "collection": {"app.bsky.feed.like"}, "path": {".subject.uri"}}, 2},
		{"/links/distinct-dids", "linking_dids", url.Values{"target": {post}, "collection": {"app.bsky.feed.like"}, "path": {".subject.uri"}}, 2},
	} {
		c.q.Set("limit", "1")
		var found []string
		for pages := 0; ; pages++ {
			var page map[string]json.RawMessage
			w.get(t, c.method, c.q, &page)
			var list []json.RawMessage
			if err := json.Unmarshal(page[c.list], &list); err != nil || len(list) > 1 || pages > 10 {
				t.Fatalf("%s: page %d has %s, %v", c.method, pages, page, err)
			}
			for _, item := range list {
				found = append(found, string(item))
			}
			var cursor string
			if page["cursor"] == nil {
				break
			}
			if err := json.Unmarshal(page["cursor"], &cursor); err != nil || strings.Trim(cursor, "0123456789abcdef") != "" || cursor == "" {
				t.Fatalf("%s: cursor %s", c.method, page["cursor"])
			}
			c.q.Set("cursor", cursor)
		}
		all := map[string]bool{}
		for _, item := range found {
			all[item] = true
		}
		if len(all) != c.items || len(found) != c.items {
			t.Errorf("%s %v: %d items, %d different: %q; want %d", c.method, c.q, len(found), len(all), found, c.items)
		}
	}
}

// TestHidden: links of a hidden account are not shown, whether the index has its event or not.
func TestHidden(t *testing.T) {
	t.Parallel()
	w := newExample(t)
	check := func() {
		t.Helper()
		for _, ask := range []struct{ method, query string }{
			{"getBacklinks", url.Values{"subject": {post}, "source": {likes}}.Encode()},
			{"getBacklinkDids", url.Values{"subject": {post}, "source": {likes}}.Encode()},
			{"getManyToMany", url.Values{"subject": {carol}, "source": {items}, "pathToOther": {"list"}}.Encode()},
		} {
			body, _, err := w.ask(t, ask.method, ask.query)
			if err != nil || strings.Contains(body, bob) || !strings.Contains(body, alice) {
				t.Errorf("%s: %s, %v", ask.method, body, err)
			}
		}
		body, _, err := w.ask(t, "getManyToManyCounts", url.Values{"subject": {carol}, "source": {items}, "pathToOther": {"list"}}.Encode())
		if err != nil || !strings.Contains(body, `"`+listX+`","total":1,"distinct":1}`) {
			t.Errorf("counts: %s, %v", body, err)
		}
	}
	w.pause()
	w.hide(t, bob)
	check()
	w.gate.Open("test")
	w.catchUp(t)
	check()
	var counts struct{ Total int }
	if w.get(t, "getBacklinksCount", url.Values{"subject": {post}, "source": {likes}}, &counts); counts.Total != 1 {
		t.Errorf("total %d", counts.Total)
	}
}

// TestBehind: a record that was changed or deleted has no pairs, though the index still has its links.
func TestBehind(t *testing.T) {
	t.Parallel()
	w := newExample(t)
	w.pause()
	changed := encode(t, listItem("did:plc:other", listX))
	w.update(t, alice, func(b *store.Batch, r *store.Repo) {
		if err := b.Apply(r, true, r.Rev, []store.Op{
			{Path: []byte("app.bsky.graph.listitem/1"), Record: changed, CID: repo.HashCID(changed)},
			{Path: []byte("app.bsky.graph.listitem/2")}}); err != nil {
			t.Error(err)
		}
	})
	var records struct{ Records []any }
	if w.get(t, "getBacklinks", url.Values{"subject": {carol}, "source": {items}}, &records); len(records.Records) != 3 {
		t.Fatalf("the index has %d links of old, want 3: it is not behind", len(records.Records))
	}
	for _, method := range []string{"getManyToMany", "getManyToManyCounts"} {
		body, header, err := w.ask(t, method, url.Values{"subject": {carol}, "source": {items}, "pathToOther": {"list"}}.Encode())
		if err != nil || strings.Contains(body, `"rkey":"1"`) || strings.Contains(body, listY) || !strings.Contains(body, listX) || strings.Contains(body, `"total":2`) {
			t.Errorf("%s: %s, %v", method, body, err)
		}
		if through := fmt.Sprint(storetest.Head(t, w.store)); header.Get("Cistern-Through") == through {
			t.Errorf("%s: complete through %s, which is the head", method, through)
		}
	}
}

// TestDisabled: without an index the refusal names the option.
func TestDisabled(t *testing.T) {
	t.Parallel()
	b := backlinks.New(nil, storetest.Open(t, store.Options{}))
	var refusal *wire.Refusal
	for name, m := range b.Methods() {
		if _, err := m(wire.Query{}); !errors.As(err, &refusal) || refusal.Name != "BacklinksDisabled" || !strings.Contains(refusal.Message, "--backlinks") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestParameters: what is wrong is refused, and the refusal names it.
func TestParameters(t *testing.T) {
	t.Parallel()
	w := newExample(t)
	ok := url.Values{"subject": {post}, "source": {likes}, "pathToOther": {"x"}, "target": {post}, "collection": {"app.bsky.feed.like"}, "path": {".subject.uri"}}
	has := func(names ...string) func(string) bool {
		return func(method string) bool {
			for _, n := range names {
				if n == method {
					return true
				}
			}
			return false
		}
	}
	newer := func(method string) bool { return !strings.HasPrefix(method, "/") }
	one := func(method string) bool { return !newer(method) && !strings.HasPrefix(method, "/links/all") }
	list := has("getBacklinks", "getBacklinkDids", "getManyToMany", "getManyToManyCounts", "/links", "/links/distinct-dids")
	many := has("getManyToMany", "getManyToManyCounts")
	for _, c := range []struct {
		name  string
		of    func(method string) bool
		value string // "": missing
	}{
		{"subject", newer, ""}, {"subject", newer, "alice.example"}, {"subject", newer, "not a uri"},
		{"source", newer, ""}, {"source", newer, "app.bsky.feed.like"}, {"source", newer, "like:subject"}, {"source", newer, ":subject"},
		{"target", func(m string) bool { return !newer(m) }, ""}, {"target", func(m string) bool { return !newer(m) }, "x"},
		{"collection", one, ""}, {"collection", one, "like"}, {"path", one, ""},
		{"limit", list, "0"}, {"limit", list, "1001"}, {"limit", list, "x"}, {"limit", list, "-1"},
		{"cursor", list, "x"}, {"cursor", list, "00"}, {"cursor", list, strings.Repeat("f", 64)},
		{"reverse", has("getBacklinks"), "1"},
		{"pathToOther", many, ""}, {"otherSubject", many, "x"},
		{"did", has("getBacklinks", "getManyToManyCounts"), strings.Repeat("x&did=", 1000) + "x"},
		{"linkDid", has("getManyToMany"), strings.Repeat("x&linkDid=", 1000) + "x"},
		{"otherSubject", many, strings.Repeat("did:a:b&otherSubject=", 1000) + "did:a:b"},
		{"from_dids", has("/links"), strings.Repeat("x,", 1000) + "x"},
	} {
		for method := range w.methods {
			q := url.Values{}
			for k, v := range ok {
				q[k] = v
			}
			q.Del(c.name)
			query := q.Encode()
			if c.value != "" {
				query += "&" + c.name + "=" + c.value
			}
			query = strings.ReplaceAll(query, " ", "+")
			_, _, err := w.ask(t, method, query)
			var refusal *wire.Refusal
			switch refused := errors.As(err, &refusal); {
			case err != nil && !refused:
				t.Errorf("%s %s=%.20s: %v", method, c.name, c.value, err)
			case refused != c.of(method):
				t.Errorf("%s %s=%.20s: %v", method, c.name, c.value, err)
			case refused && (refusal.Name != "InvalidRequest" || !strings.Contains(refusal.Message, c.name) && c.name != "source"):
				t.Errorf("%s %s=%.20s: %v", method, c.name, c.value, err)
			}
		}
	}
}

// FuzzQuery asks every method with any parameters. An answer is JSON, and what is refused is the
// client's fault.
func FuzzQuery(f *testing.F) {
	w := newExample(f)
	f.Add(url.Values{"subject": {post}, "source": {likes}, "limit": {"1"}, "cursor": {"0000000000000002"}}.Encode())
	f.Add(url.Values{"subject": {carol}, "source": {items}, "pathToOther": {"list"}, "otherSubject": {listX}, "cursor": {"00000000000000020000000000000002"}}.Encode())
	f.Add(url.Values{"subject": {carol}, "source": {items}, "pathToOther": {"list"}, "cursor": {"000000000000000200000000000000020000000000000000616263"}}.Encode())
	f.Add(url.Values{"target": {post}, "collection": {"app.bsky.feed.like"}, "path": {".subject.uri"}, "from_dids": {alice}}.Encode())
	f.Fuzz(func(t *testing.T, query string) {
		for method := range w.methods {
			body, _, err := w.ask(t, method, query)
			var refusal *wire.Refusal
			if err != nil && (!errors.As(err, &refusal) || refusal.Name != "InvalidRequest") {
				t.Errorf("%s?%s: %v", method, query, err)
			}
			if err == nil && !json.Valid([]byte(body)) {
				t.Errorf("%s?%s: %s", method, query, body)
			}
		}
	})
}
