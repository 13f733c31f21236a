package api_test

import (
	"html"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"cistern/api"
	"cistern/api/openapi"
	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/gorilla/websocket"
)

var browser = map[string]string{"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}

// front returns the page of the public listener as a browser gets it.
func (w *world) front(t testing.TB) (page string, res *http.Response) {
	t.Helper()
	if res = call(t, "GET", w.public.URL+"/", "", browser, &page); res.StatusCode != 200 {
		t.Fatalf("%d %s", res.StatusCode, page)
	}
	return page, res
}

// knows makes the host of all accounts known, as a fetch does.
func (w *world) knows(t testing.TB) {
	t.Helper()
	if _, err := w.store.HostID("pds.test"); err != nil {
		t.Fatal(err)
	}
}

// put returns the op that writes a record.
func put(path string) store.Op {
	record := storetest.Text(path)
	return store.Op{Path: []byte(path), CID: repo.HashCID(record), Record: record}
}

var tags = regexp.MustCompile(`<[^>]*>`)

// commands returns the examples of a page as a reader sees them.
func commands(page string) (all []string) {
	for _, m := range regexp.MustCompile(`(?s)<pre[^>]*>(.*?)</pre>`).FindAllStringSubmatch(page, -1) {
		all = append(all, html.UnescapeString(tags.ReplaceAllString(m[1], "")))
	}
	return all
}

var command = regexp.MustCompile(`^(curl|curl -o [a-z.]+|websocat) '((?:http|ws)://[^' ]+)'$`)

// runs asks for the address of each example of the page, and returns how many there are.
func (w *world) runs(t testing.TB, page string) int {
	t.Helper()
	all := commands(page)
	for _, c := range all {
		m := command.FindStringSubmatch(c)
		if m == nil {
			t.Errorf("%q is no command", c)
			continue
		}
		if m[1] == "websocat" {
			ws, res, err := websocket.DefaultDialer.Dial(m[2], nil)
			if err != nil {
				t.Errorf("%s: %v %v", c, res, err)
				continue
			}
			_ = ws.Close()
			continue
		}
		var text string
		if res := call(t, "GET", m[2], "", nil, &text); res.StatusCode != 200 {
			t.Errorf("%s: %d %.200s", c, res.StatusCode, text)
		}
	}
	return len(all)
}

// TestFrontPage: each route is on the page with an example that works, about the newest event of the
// firehose, and the page keeps to its policy.
func TestFrontPage(t *testing.T) {
	t.Parallel()
	w := newExamples(t)
	w.commit(t, exampleDID, w.examples, put("app.test.note/its:1"))
	w.knows(t)
	page, res := w.front(t)
	if n := w.runs(t, page); n != len(openapi.Routes()) {
		t.Errorf("%d examples of %d routes", n, len(openapi.Routes()))
	}
	for _, want := range []string{"<dt>Accounts</dt><dd>1</dd>", "<dt>Collections</dt><dd>3</dd>", "repo=" + exampleDID + "&amp;collection=app.test.note&amp;rkey=its:1"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not on the page", want)
		}
	}
	policy := res.Header.Get("Content-Security-Policy")
	if !strings.HasPrefix(policy, "default-src 'none'; ") || strings.Contains(policy, "unsafe") ||
		res.Header.Get("Content-Type") != "text/html; charset=utf-8" || res.Header.Get("Cache-Control") != "public, max-age=5" ||
		!strings.Contains(strings.Join(res.Header.Values("Vary"), ","), "Accept") {
		t.Errorf("%v", res.Header)
	}
	if bad := regexp.MustCompile(`(?i)<style|\sstyle=|\son[a-z]+=|<script(?:>| [^>]*>[^<])|javascript:|(?:src|href)="(?:https?:)?//`).FindString(page); bad != "" {
		t.Errorf("the page has %q", bad)
	}
	for _, m := range regexp.MustCompile(`(?:src|href)="([^"#]+)"`).FindAllStringSubmatch(page, -1) {
		target := strings.TrimPrefix(html.UnescapeString(m[1]), ".")
		var text string
		if res := call(t, "GET", w.public.URL+"/"+strings.TrimPrefix(target, "/"), "", nil, &text); res.StatusCode != 200 {
			t.Errorf("%s: %d", m[1], res.StatusCode)
		}
	}
	wellFormed(t, page)
}

// wellFormed checks that every element that is opened is closed in order, and that each id is one.
func wellFormed(t testing.TB, page string) {
	t.Helper()
	void := map[string]bool{"meta": true, "link": true, "img": true, "input": true}
	var open []string
	ids := map[string]bool{}
	for _, m := range regexp.MustCompile(`<(/?)([a-z0-9]+)([^>]*)>`).FindAllStringSubmatch(page, -1) {
		switch name := m[2]; {
		case m[1] == "" && !void[name]:
			open = append(open, name)
		case m[1] == "/":
			if len(open) == 0 || open[len(open)-1] != name {
				t.Fatalf("</%s> closes %v", name, open)
			}
			open = open[:len(open)-1]
		}
		if id := regexp.MustCompile(` id="([^"]*)"`).FindStringSubmatch(m[3]); id != nil {
			if ids[id[1]] {
				t.Errorf("id %s stands twice", id[1])
			}
			ids[id[1]] = true
		}
	}
	if len(open) > 0 {
		t.Errorf("%v are not closed", open)
	}
}

// TestFrontPageUnchanged: a page is sent again only if something on it changed, HEAD has no body, and
// clients that do not ask for HTML get a text.
func TestFrontPageUnchanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	w.hold(t, alice, storetest.Records{"app.test.a/one": storetest.Text("x")})
	_, res := w.front(t)
	again := map[string]string{"Accept": "text/html", "If-None-Match": res.Header.Get("ETag")}
	var text string
	if res := call(t, "GET", w.public.URL+"/", "", again, &text); res.StatusCode != 304 || text != "" {
		t.Errorf("unchanged: %d %.100s", res.StatusCode, text)
	}
	if res := call(t, "HEAD", w.public.URL+"/", "", browser, &text); res.StatusCode != 200 || text != "" {
		t.Errorf("HEAD: %d %.100s", res.StatusCode, text)
	}
	w.hold(t, bob, storetest.Records{"app.test.a/one": storetest.Text("x")})
	if res := call(t, "GET", w.public.URL+"/", "", again, &text); res.StatusCode != 200 || !strings.Contains(text, bob) {
		t.Errorf("changed: %d %.100s", res.StatusCode, text)
	}
	if res := call(t, "GET", w.public.URL+"/", "", map[string]string{"Accept": "*/*"}, &text); res.StatusCode != 200 || !strings.HasPrefix(text, "This is a Cistern") {
		t.Errorf("text: %d %.100s", res.StatusCode, text)
	}
	for _, name := range []string{"page.html", "nothing", "..%2fpage.go"} {
		if res := call(t, "GET", w.public.URL+"/page/"+name, "", nil, &text); res.StatusCode != 404 {
			t.Errorf("%s: %d", name, res.StatusCode)
		}
	}
}

// TestFrontPageHost: no header Host ends the quotes of an example or the text of the page.
func TestFrontPageHost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	for host, want := range map[string]string{
		"index.example.com":        "http://index.example.com/",
		"index.example.com:8443":   "http://index.example.com:8443/",
		"[::1]:2481":               "http://[::1]:2481/",
		"a'b;id":                   "http://HOST/",
		"a&b":                      "http://HOST/",
		"-o":                       "http://HOST/",
		strings.Repeat("a", 1000):  "http://HOST/",
		"a:99999999":               "http://HOST/",
		"$(id)":                    "http://HOST/",
		"index.example.com'%20-o'": "http://HOST/",
	} {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
		r.Host = host
		r.Header.Set("Accept", "text/html")
		r.Header.Set("X-Forwarded-Proto", "https")
		r.Header.Set("X-Forwarded-Host", "evil.example.com")
		rec := httptest.NewRecorder()
		w.server.Public().ServeHTTP(rec, r)
		if page := rec.Body.String(); rec.Code != 200 || !strings.Contains(strings.Join(commands(page), "\n"), "curl '"+want) ||
			strings.Contains(page, "evil") || want == "http://HOST/" && strings.Contains(page, host) && host != "-o" {
			t.Errorf("%q: %d %.300s", host, rec.Code, commands(page))
		}
	}
}

// TestFrontPageHides: examples are never about an account that is hidden, nor about a record that was
// deleted, and the page has nothing administrative.
func TestFrontPageHides(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	m := storetest.Records{"app.test.a/one": storetest.Text("x")}
	if page, _ := w.front(t); !strings.Contains(page, "did=DID") {
		t.Error("an empty index has no placeholders")
	}
	w.hold(t, alice, m)
	w.hold(t, bob, storetest.Records{"app.test.a/one": storetest.Text("x")})
	w.commit(t, alice, m, put("app.test.a/two"))
	if page, _ := w.front(t); !strings.Contains(page, "repo="+alice) || strings.Contains(page, bob) {
		t.Error("examples are not about the newest event of the firehose")
	}
	w.commit(t, alice, m, store.Op{Path: []byte("app.test.a/two")})
	if page, _ := w.front(t); strings.Contains(page, "rkey=two") {
		t.Error("examples are about a deleted record")
	}
	w.update(t, alice, func(b *store.Batch, r *store.Repo) {
		r.Status = store.StatusTakendown
		b.Account(r)
	})
	page, _ := w.front(t)
	if strings.Contains(page, alice) || !strings.Contains(page, "repo="+bob) {
		t.Error("examples are about a hidden account")
	}
	for _, secret := range []string{"/repos", "/hosts", "/subscriptions", "/firehose", "/filter", "/alerts", "/overview",
		"/maintenance", "/metrics", "/debug", "/ingestion", "/phase", "/crawler", "token", "retry", "webhook"} {
		if strings.Contains(strings.ToLower(page), secret) {
			t.Errorf("%q is on the page", secret)
		}
	}
}

// TestFrontPageEphemeral: a store that keeps events only says so, and shows no example that it refuses.
func TestFrontPageEphemeral(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, storetest.Open(t, store.Options{Ephemeral: true, Retention: time.Hour}), api.Options{})
	w.hold(t, alice, storetest.Records{"app.test.a/one": storetest.Text("x")})
	w.resolved(t, alice, "")
	w.knows(t)
	page, _ := w.front(t)
	if n := w.runs(t, page); n < 10 || !strings.Contains(page, "keeps events only") || !strings.Contains(page, "not connected") {
		t.Errorf("%d examples: %s", n, page)
	}
	for _, refused := range []string{"getRecord", "getRepo?", "/export", "/links", "resolveHandle"} {
		if strings.Contains(page, refused) {
			t.Errorf("%s is on the page", refused)
		}
	}
}
