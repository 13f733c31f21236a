package api_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cistern/api"
	"cistern/api/admin"
	"cistern/store"

	"github.com/google/go-cmp/cmp"
)

// fakeCrawler is a set of sources that list nothing.
type fakeCrawler struct {
	mu      sync.Mutex
	sources []admin.Crawl
	fail    error
}

func (f *fakeCrawler) options() admin.Crawler {
	change := func(do func(i int, c store.CrawlSource) error) func(store.CrawlSource) error {
		return func(c store.CrawlSource) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			return errors.Join(f.fail, do(slices.IndexFunc(f.sources, func(have admin.Crawl) bool { return have.CrawlSource == c }), c))
		}
	}
	return admin.Crawler{
		Sources: func() []admin.Crawl {
			f.mu.Lock()
			defer f.mu.Unlock()
			return slices.Clone(f.sources)
		},
		Parse: func(kind, url string) (store.CrawlSource, error) {
			if kind != "repos" && kind != "hosts" {
				return store.CrawlSource{}, fmt.Errorf("unknown kind %q", kind)
			}
			host, ok := strings.CutPrefix(strings.ToLower(url), "https://")
			if !ok {
				return store.CrawlSource{}, fmt.Errorf("%.200q is no origin", url)
			}
			return store.CrawlSource{Kind: kind, URL: "https://" + strings.TrimSuffix(host, "/")}, nil
		},
		Add: change(func(i int, c store.CrawlSource) error {
			if i < 0 {
				f.sources = append(f.sources, admin.Crawl{CrawlSource: c, Persisted: true})
			}
			return nil
		}),
		Remove: change(func(i int, _ store.CrawlSource) error {
			if i < 0 {
				return store.ErrNotFound
			}
			f.sources = slices.Delete(f.sources, i, i+1)
			return nil
		}),
		Forget: change(func(i int, _ store.CrawlSource) error {
			if i < 0 || f.sources[i].Pages == 0 {
				return store.ErrNotFound
			}
			f.sources[i].Pages = 0
			return nil
		}),
	}
}

func TestCrawlSources(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f := &fakeCrawler{sources: []admin.Crawl{
		{CrawlSource: store.CrawlSource{Kind: "hosts", URL: "https://relay.test"}, Running: true, Lists: 7, Ended: 5, Failing: 1, Pages: 20, Listed: 900,
			Queued: 3, Found: 800, PassEnded: at, FailedAt: at, Failure: "host answered 503"},
	}}
	w := newWorld(t, api.Options{Crawler: f.options()})
	var text string
	call(t, "GET", w.admin.URL+"/crawler/sources", "", nil, &text)
	want := `[{"url":"https://relay.test","kind":"hosts","persisted":false,"running":true,"last_pass":"2026-01-02T03:04:05Z",` +
		`"last_error":{"at":"2026-01-02T03:04:05Z","detail":"host answered 503"},` +
		`"stats":{"lists":7,"ended":5,"failing":1,"pages":20,"listed":900,"found":800,"queued":3}}]`
	if diff := cmp.Diff(want, text); diff != "" {
		t.Error(diff)
	}
	if res := call(t, "GET", w.public.URL+"/crawler/sources", "", nil, nil); res.StatusCode != 404 {
		t.Errorf("the public listener shows sources: %d", res.StatusCode)
	}
	f.sources = append(f.sources, admin.Crawl{CrawlSource: store.CrawlSource{Kind: "repos", URL: "https://named.test"}, Named: true})
	for _, c := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"POST", "/crawler/sources", `{"url":"https://New.test/","kind":"repos"}`, 201, `{"url":"https://new.test","kind":"repos"}`},
		{"POST", "/crawler/sources", `{"url":"https://new.test","kind":"repos"}`, 201, `new.test`}, // again
		{"POST", "/crawler/sources", `{"url":"ftp://x","kind":"repos"}`, 400, `ftp://x`},
		{"POST", "/crawler/sources", `{"url":"https://x","kind":"list_repos"}`, 400, `list_repos`},
		{"POST", "/crawler/sources", `{"url":"https://x"}`, 400, "lacks kind"},
		{"POST", "/crawler/sources", `{"kind":"repos"}`, 400, "lacks url"},
		{"POST", "/crawler/sources", `{"url":"https://x","mode":"repos"}`, 400, "mode"},
		{"POST", "/crawler/sources", `[]`, 400, "want a JSON object"},
		{"DELETE", "/crawler/sources", `{"url":"https://new.test","kind":"hosts"}`, 404, "hosts::https://new.test"},
		{"DELETE", "/crawler/sources", `{"url":"https://new.test","kind":"repos"}`, 200, "new.test"},
		{"DELETE", "/crawler/sources", `{"url":"https://new.test","kind":"repos"}`, 404, "new.test"},
		{"DELETE", "/crawler/sources", `{"url":"https://named.test","kind":"repos"}`, 200, "stays removed after a restart"},
		{"DELETE", "/crawler/sources", `{"url":7,"kind":"repos"}`, 400, "url is a number"},
		{"DELETE", "/crawler/cursors", `{"url":"https://relay.test","kind":"hosts"}`, 200, "relay.test"},
		{"DELETE", "/crawler/cursors", `{"url":"https://relay.test","kind":"hosts"}`, 404, "has no cursor"},
		{"PATCH", "/crawler/sources", `{}`, 405, "GET and POST and DELETE"},
	} {
		var text string
		res := call(t, c.method, w.admin.URL+c.path, c.body, jsonType, &text)
		if res.StatusCode != c.status || !strings.Contains(text, c.says) {
			t.Errorf("%s %s %.80s: %d %s", c.method, c.path, c.body, res.StatusCode, text)
		}
	}
	if len(f.sources) != 1 {
		t.Errorf("left are %+v", f.sources)
	}
	f.fail = errors.New("secret of the store")
	var e refused
	if res := call(t, "POST", w.admin.URL+"/crawler/sources", `{"url":"https://x.test","kind":"repos"}`, jsonType, &e); res.StatusCode != 500 || strings.Contains(e.Message, "secret") {
		t.Errorf("a failed store: %d %+v", res.StatusCode, e)
	}
	bare := newWorld(t, api.Options{})
	for _, method := range []string{"GET", "POST", "DELETE"} {
		res := call(t, method, bare.admin.URL+"/crawler/sources", `{"url":"https://x.test","kind":"repos"}`, jsonType, &e)
		if res.StatusCode != 501 || !strings.Contains(e.Message, "crawls nothing") {
			t.Errorf("%s without a crawler: %d %+v", method, res.StatusCode, e)
		}
	}
}
