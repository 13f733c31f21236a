package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"cistern/api"
	"cistern/filter"
	"cistern/store"
	"cistern/store/storetest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
)

type filterAnswer struct {
	filter.Config
	Version uint32
	Change  *struct {
		Running bool
		Cursor  string
		Lacking int64
	}
}

func TestFilter(t *testing.T) {
	t.Parallel()
	var running atomic.Bool
	w := newWorld(t, api.Options{Refilter: func() (string, bool, error) { return bob, running.Load(), nil }})
	var text string
	if res := call(t, "GET", w.admin.URL+"/filter", "", nil, &text); res.StatusCode != 200 ||
		text != `{"mode":"filter","store":"wanted","signals":[],"collections":[],"excludes":[],"version":0,"change":null}` {
		t.Errorf("%d %s", res.StatusCode, text)
	}
	want := filterAnswer{Config: filter.Config{Mode: "filter", Store: "wanted", Signals: []string{}, Collections: []string{}, Excludes: []string{}}}
	for i, c := range []struct {
		body   string
		change func(c *filter.Config)
	}{
		{`{}`, func(*filter.Config) {}}, // the first is in force whatever it says
		{`{"mode":"full","store":"all"}`, func(c *filter.Config) { c.Mode, c.Store = "full", "all" }},
		{`{"signals":["app.test.b","app.test.a"]}`, func(c *filter.Config) { c.Signals = []string{"app.test.a", "app.test.b"} }},
		{`{"signals":{"app.test.a":false},"collections":{"app.test.*":true}}`,
			func(c *filter.Config) { c.Signals, c.Collections = []string{"app.test.b"}, []string{"app.test.*"} }},
		{`{"excludes":["` + alice + `"]}`, func(c *filter.Config) { c.Excludes = []string{alice} }},
	} {
		c.change(&want.Config)
		want.Version = uint32(i + 1)
		for _, method := range []string{"PATCH", "PATCH", "GET"} { // what is asked for twice is no other version
			woken := w.woken.Load()
			var got filterAnswer
			if res := call(t, method, w.admin.URL+"/filter", c.body, jsonType, &got); res.StatusCode != 200 {
				t.Errorf("%s %s: %d", method, c.body, res.StatusCode)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s %s: %s", method, c.body, diff)
			}
			if method == "PATCH" && w.woken.Load() == woken {
				t.Errorf("%s: Wake was not called", c.body)
			}
		}
	}
	if got := w.store.Filter(); got.Version != 5 || !got.Excluded(alice) || !got.StoresAll() {
		t.Errorf("the store has version %d: %+v", got.Version, got.Config())
	}
	running.Store(true)
	var got filterAnswer
	call(t, "GET", w.admin.URL+"/filter", "", nil, &got)
	if got.Change == nil || got.Change.Cursor != bob || got.Change.Lacking != 0 {
		t.Errorf("under way: %+v", got.Change)
	}
}

// A change is not over while repositories lack records, though the pass over them has ended.
func TestFilterChangeLacks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	w.hold(t, alice, storetest.Records{"app.test.a/one": storetest.Text("x")})
	w.update(t, alice, func(_ *store.Batch, r *store.Repo) { r.Lacks = true })
	var got filterAnswer
	if call(t, "GET", w.admin.URL+"/filter", "", nil, &got); got.Change == nil || got.Change.Lacking != 1 || got.Change.Running {
		t.Errorf("with a repository that lacks records: %+v", got.Change)
	}
	// What is gone cannot be fetched: it is no reason to wait.
	w.update(t, alice, func(_ *store.Batch, r *store.Repo) {
		r.State, r.Status, r.Pending = store.StateGone, store.StatusDeactivated, store.PendingKey{}
	})
	got = filterAnswer{}
	if call(t, "GET", w.admin.URL+"/filter", "", nil, &got); got.Change != nil {
		t.Errorf("with a repository that is gone: %+v", got.Change)
	}
}

func TestFilterRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	items := make([]string, 10_001)
	for i := range items {
		items[i] = fmt.Sprintf("com.example.c%d", i)
	}
	many, err := json.Marshal(map[string][]string{"signals": items})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		body   string
		status int
		says   []string
	}{
		"nothing":       {"", 400, []string{"JSON object"}},
		"array":         {"[]", 400, []string{"JSON object"}},
		"unknown field": {`{"modes":"full"}`, 400, []string{`"modes"`}},
		"wrong type":    {`{"mode":true}`, 400, []string{"mode is true"}},
		"bad values":    {`{"mode":"x","signals":["one"],"excludes":{"two":false}}`, 400, []string{`"one"`, `"two"`}},
		"half good":     {`{"mode":"full","collections":["app.test.a","app.test"]}`, 400, []string{`"app.test"`}},
		"long":          {`{"signals":["` + strings.Repeat("x", 5<<20) + `"]}`, 413, []string{"4194304"}},
		"long value":    {`{"signals":["` + strings.Repeat("x", 1<<20) + `"]}`, 400, []string{"xxxx"}},
		"many items":    {string(many), 400, []string{"10001 signals"}},
		"many mistakes": {`{"signals":[` + strings.Repeat(`"x",`, 499) + `"x"]}`, 400, []string{`"x"`, "; ", "and 400 more"}},
		"deep":          {`{"signals":` + strings.Repeat("[", 100_000), 400, []string{"signals"}},
	} {
		var e refused
		if res := call(t, "PATCH", w.admin.URL+"/filter", c.body, jsonType, &e); res.StatusCode != c.status || len(e.Message) > 100<<10 {
			t.Errorf("%s: %d %.300s", name, res.StatusCode, e.Message)
		}
		for _, says := range c.says {
			if !strings.Contains(e.Message, says) {
				t.Errorf("%s: %.300q does not say %q", name, e.Message, says)
			}
		}
	}
	for _, c := range []struct {
		base, method, contentType string
		status                    int
	}{
		{w.admin.URL, "PATCH", "text/plain", 415},
		{w.admin.URL, "PATCH", "", 415},
		{w.admin.URL, "PUT", "application/json", 405},
		{w.public.URL, "PATCH", "application/json", 404},
		{w.public.URL, "GET", "", 404},
	} {
		if res := call(t, c.method, c.base+"/filter", `{"mode":"full"}`, map[string]string{"Content-Type": c.contentType}, nil); res.StatusCode != c.status {
			t.Errorf("%s %q: %d, want %d", c.method, c.contentType, res.StatusCode, c.status)
		}
	}
	if v := w.store.Filter().Version; v != 0 || w.woken.Load() != 0 {
		t.Errorf("version %d, woken %d times", v, w.woken.Load())
	}
}

// Each of many changes at a time must be there in the end.
func TestFilterChangesAtATime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	const n = 40
	var g errgroup.Group
	for i := range n {
		g.Go(func() error {
			req, err := http.NewRequestWithContext(t.Context(), "PATCH", w.admin.URL+"/filter", strings.NewReader(fmt.Sprintf(`{"signals":{"app.test.c%d":true}}`, i)))
			if err != nil {
				return err
			}
			req.Header.Set("Content-Type", "application/json")
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			return res.Body.Close()
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := w.store.Filter(); len(got.Signals()) != n || got.Version != n {
		t.Errorf("version %d has %d signals, want %d of each", got.Version, len(got.Signals()), n)
	}
}

func TestExcludedIsNotTracked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	if _, err := w.store.SetFilter(filter.Config{Excludes: []string{bob, carol}}); err != nil {
		t.Fatal(err)
	}
	var e refused
	if res := call(t, "PUT", w.admin.URL+"/repos", `["`+alice+`","`+bob+`","`+carol+`"]`, jsonType, &e); res.StatusCode != 400 || e.Error != "InvalidRequest" ||
		!strings.Contains(e.Message, bob+", "+carol) || strings.Contains(e.Message, alice) {
		t.Errorf("%d %+v", res.StatusCode, e)
	}
	if _, err := w.store.Repo(alice); err == nil {
		t.Error("a list that is refused was half done")
	}
	w.one(t, "DELETE", "/repos", bob, "not found")
	wantRow(t, w.one(t, "PUT", "/repos", alice, "added"), store.StatePending, store.ByOperator, 0)
	var text string
	if res := call(t, "PATCH", w.admin.URL+"/filter", `{"excludes":{"`+bob+`":false}}`, jsonType, &text); res.StatusCode != 200 {
		t.Fatalf("%d %s", res.StatusCode, text)
	}
	wantRow(t, w.one(t, "PUT", "/repos", bob, "added"), store.StatePending, store.ByOperator, 0)
}

// TestFilterTooOften: a change that would be one too many for the pass to follow is refused, and
// may be asked for again.
func TestFilterTooOften(t *testing.T) {
	t.Parallel()
	w := newWorld(t, api.Options{})
	for i := range 4096 {
		c := filter.Config{Signals: []string{fmt.Sprintf("app.test.c%d", i)}}
		if _, err := w.store.SetFilter(c); err != nil {
			t.Fatal(err)
		}
	}
	patch := func(body string, want int, said string) {
		t.Helper()
		var text string
		res := call(t, "PATCH", w.admin.URL+"/filter", body, jsonType, &text)
		if res.StatusCode != want || !strings.Contains(text, said) {
			t.Errorf("%s: %d %s", body, res.StatusCode, text)
		}
	}
	const more = `{"signals":{"app.test.more":true}}`
	for range 2 {
		patch(more, 503, "wait until")
	}
	patch(`{"excludes":{"did:web:a.test":true}}`, 200, "did:web:a.test")
	if _, err := w.store.DropSelections(4096, nil); err != nil {
		t.Fatal(err)
	}
	patch(more, 200, "app.test.more")
}
