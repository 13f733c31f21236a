package api_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"cistern/api"
	"cistern/ingest/repo"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/klauspost/compress/zstd"
)

// ask sends a request as it is: the client does not decompress.
func ask(t testing.TB, method, url string, header map[string]string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	client := http.Client{Transport: &http.Transport{DisableCompression: true}}
	defer client.CloseIdleConnections()
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, body
}

// A tag holds until something changes, and no longer; another record of the repository changes it
// too.
func TestETags(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	w.hold(t, alice, storetest.Records{"app.test.a/one": storetest.Text("x"), "app.test.a/two": storetest.Text("y")})
	key := url.Values{"repo": {alice}, "collection": {"app.test.a"}, "rkey": {"one"}}
	get, list := w.public.URL+"/xrpc/com.atproto.repo.getRecord?"+key.Encode(), w.public.URL+"/xrpc/com.atproto.repo.listRecords?"+key.Encode()
	cid := repo.HashCID(storetest.Text("x")).String()
	byCID := get + "&cid=" + cid
	tag := func(url, etag string, want int) string {
		t.Helper()
		res, body := ask(t, "GET", url, map[string]string{"If-None-Match": etag})
		if want != 400 && res.Header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%s, %d: %v", url, res.StatusCode, res.Header)
		}
		if res.StatusCode != want || (want != 200) != (len(body) == 0) {
			t.Errorf("%s with %s: %d %s, want %d", url, etag, res.StatusCode, body, want)
		}
		row, err := w.store.Repo(alice)
		if got := res.Header.Get("Atproto-Repo-Rev"); err != nil || got != row.Rev {
			t.Errorf("%s: rev %s, %v, want %s", url, got, err, row.Rev)
		}
		return res.Header.Get("ETag")
	}
	apply := func(ops ...store.Op) {
		t.Helper()
		w.update(t, alice, func(b *store.Batch, r *store.Repo) {
			if err := b.Apply(r, true, r.Rev, ops); err != nil { // the rev stays: a difference in part
				t.Error(err)
			}
		})
	}
	write := func(path, text string) store.Op {
		return store.Op{Path: []byte(path), Record: storetest.Text(text), CID: repo.HashCID(storetest.Text(text))}
	}
	for _, url := range []string{get, list} {
		first := tag(url, "", 200)
		if tag(url, first, 304) != first || tag(url, `"x", `+strings.TrimPrefix(first, "W/"), 304) != first || tag(url, "*", 304) != first {
			t.Errorf("%s: the tag changes", url)
		}
		for _, change := range []func(){
			func() { apply(write("app.test.a/two", fmt.Sprint(time.Now()))) }, // update
			func() { apply(write("app.test.b/new", "n")) },
			func() { apply(store.Op{Path: []byte("app.test.b/new")}) },
			func() { w.update(t, alice, func(_ *store.Batch, r *store.Repo) { r.Filter++ }) },
		} {
			if change(); tag(url, first, 200) == first {
				t.Errorf("%s: the tag stays", url)
			}
			w.update(t, alice, func(_ *store.Batch, r *store.Repo) { r.Filter = 0 })
			first = tag(url, "", 200)
		}
	}
	if res, _ := ask(t, "GET", byCID, nil); res.Header.Get("ETag") != `W/"`+cid+`"` || res.Header.Get("Cache-Control") != "public, max-age=60" {
		t.Errorf("by CID: %v", res.Header)
	}
	tag(byCID, `"`+cid+`"`, 304)
	// What is not there has no tag, and a client that has one does not keep it.
	apply(write("app.test.a/one", "changed"))
	for url, etag := range map[string]string{byCID: `"` + cid + `"`, strings.Replace(get, "rkey=one", "rkey=none", 1): "*"} {
		if res, _ := ask(t, "GET", url, map[string]string{"If-None-Match": etag}); res.StatusCode != 400 || res.Header.Get("ETag")+res.Header.Get("Cache-Control") != "" {
			t.Errorf("%s: %d, %v", url, res.StatusCode, res.Header)
		}
	}
	w.update(t, alice, func(b *store.Batch, r *store.Repo) { r.Status = store.StatusTakendown; b.Account(r) })
	for _, url := range []string{get, list, byCID} {
		if res, _ := ask(t, "GET", url, map[string]string{"If-None-Match": "*"}); res.StatusCode != 400 || res.Header.Get("ETag") != "" {
			t.Errorf("%s of a hidden account: %d, %v", url, res.StatusCode, res.Header)
		}
	}
}

// Answers are compressed as the client accepts it, and are the same.
func TestCoding(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	m := storetest.Records{}
	for i := range 60 {
		m[fmt.Sprintf("app.test.a/%d", i)] = storetest.Text(strings.Repeat(fmt.Sprint(i, " "), 10))
	}
	w.hold(t, alice, m)
	long := w.public.URL + "/xrpc/com.atproto.repo.listRecords?" + url.Values{"repo": {alice}, "collection": {"app.test.a"}}.Encode()
	short := w.public.URL + "/xrpc/com.atproto.sync.getRepoStatus?did=" + alice
	_, want := ask(t, "GET", long, nil)
	for accept, coding := range map[string]string{"": "", "identity": "", "br": "", "gzip": "gzip", "zstd": "zstd", "gzip, zstd": "zstd", "gzip;q=1, zstd;q=0.5": "gzip",
		"gzip;q=0": "", "*": "", ";;=,": ""} {
		res, body := ask(t, "GET", long, map[string]string{"Accept-Encoding": accept})
		if res.Header.Get("Content-Encoding") != coding || res.Header.Get("Vary") != "Accept-Encoding" || res.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%q: %v", accept, res.Header)
			continue
		}
		var err error
		switch coding {
		case "gzip":
			var r *gzip.Reader
			if r, err = gzip.NewReader(bytes.NewReader(body)); err == nil {
				body, err = io.ReadAll(r)
			}
		case "zstd":
			var d *zstd.Decoder
			if d, err = zstd.NewReader(nil); err == nil {
				body, err = d.DecodeAll(body, nil)
				d.Close()
			}
		}
		if err != nil || !bytes.Equal(body, want) {
			t.Errorf("%q: %v, %d bytes, want %d", accept, err, len(body), len(want))
		}
		if res, _ := ask(t, "GET", short, map[string]string{"Accept-Encoding": accept}); res.Header.Get("Content-Encoding") != "" {
			t.Errorf("%q: a short answer is compressed", accept)
		}
		if res, body := ask(t, "HEAD", long, map[string]string{"Accept-Encoding": accept}); res.StatusCode != 200 || len(body) != 0 {
			t.Errorf("HEAD, %q: %d, %d bytes", accept, res.StatusCode, len(body))
		}
	}
}

// Caches ask for everything again that an account can hide: without a word they may keep it.
func TestCachesAsk(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	w.hold(t, alice, storetest.Records{"app.test.a/one": storetest.Text("x")})
	cid := repo.HashCID(storetest.Text("x")).String()
	for _, query := range []string{"repo.getRecord?rkey=one&collection=app.test.a&repo=", "repo.listRecords?collection=app.test.a&repo=", "repo.describeRepo?repo=",
		"sync.getRepo?did=", "sync.getRecord?rkey=one&collection=app.test.a&did=", "sync.getBlocks?cids=" + cid + "&did=", "sync.getLatestCommit?did=",
		"sync.getRepoStatus?did=", "sync.listRepos?x=", "sync.listReposByCollection?x="} {
		res, _ := ask(t, "GET", w.public.URL+"/xrpc/com.atproto."+query+alice, nil)
		if res.StatusCode != 200 || res.Header.Get("Cache-Control") != "no-cache" {
			t.Errorf("%s: %d, %v", query, res.StatusCode, res.Header)
		}
	}
}

// Web pages may read everything public, whatever the answer, and nothing private.
func TestWebPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	w.hold(t, alice, storetest.Records{"app.test.a/one": storetest.Text("x")})
	const path = "/xrpc/com.atproto.repo.getRecord?collection=app.test.a&repo="
	for _, path := range []string{path + alice + "&rkey=one", path + bob + "&rkey=one", path, "/stats", "/nothing", "/xrpc/nothing"} {
		for _, method := range []string{"GET", "OPTIONS", "HEAD", "POST"} {
			header := map[string]string{"Origin": "https://page.example", "Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "if-none-match"}
			res, _ := ask(t, method, w.public.URL+path, header)
			if res.Header.Get("Access-Control-Allow-Origin") != "*" || res.Header.Get("Access-Control-Allow-Credentials") != "" {
				t.Errorf("%s %s: %v", method, path, res.Header)
			}
			if method == "OPTIONS" && (res.StatusCode != 204 || res.Header.Get("Access-Control-Allow-Headers") != "*" || !strings.Contains(res.Header.Get("Access-Control-Allow-Methods"), "GET")) {
				t.Errorf("preflight of %s: %d %v", path, res.StatusCode, res.Header)
			}
		}
		rec := httptest.NewRecorder()
		w.server.Admin().ServeHTTP(rec, httptest.NewRequest("GET", path, nil))
		if rec.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s is open to web pages on the private listener", path)
		}
	}
}
